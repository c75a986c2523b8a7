"""How alike patches and positions are, and which patches a model keeps or refines."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kvision.viz.transformer_graph import (
    Block,
    checked_images,
    chosen_blocks,
    kept_cells,
    mixing_layers,
    patch_grid,
    placing_tensors,
    pruning_layers,
    run_to,
    token_layout,
)

__all__ = [
    "fine_patches",
    "kept_tokens",
    "patch_similarity",
    "position_similarity",
]

Array = np.ndarray


def patch_similarity(model: keras.Model, images: Any, block: Block = -1) -> Array:
    """Compute how alike the patches of an image are to a model.

    Args:
        model: a Functional model of `kvision.models` with transformer blocks.
        images: (B, H, W, C) or (H, W, C) array in 0..255 of the model's input size.
        block: number (-1 is the last) or name of the block that the tokens leave.

    Returns:
        (B, h, w, h, w) float32 array of cosine similarities in [-1, 1]: entry
        [b, y, x] is a grid, that of the patch in row y and column x. NaN for patches
        that were pruned before.

    Raises:
        ValueError: if the model has no such block, or images do not fit.
    """
    (chosen,) = chosen_blocks(model, [block])
    images = checked_images(model, images)
    places = placing_tensors(model, chosen)
    values, places = run_to(model, (chosen.output, places), images)
    tokens = _float32(values)
    batch = len(tokens)
    if tokens.ndim == 4:
        grid_size = tokens.shape[1:3]
        similarity = _cosines(tokens.reshape(batch, -1, tokens.shape[-1]))
        return similarity.reshape(batch, *grid_size * 2)
    layout = token_layout(model, tokens, places)
    similarity = _cosines(tokens[:, layout.num_prefix_tokens :])
    # Rows to the grid, then columns.
    rows = layout.placed(similarity.transpose(0, 2, 1))
    columns = rows.reshape(batch, similarity.shape[1], -1).transpose(0, 2, 1)
    return layout.placed(columns).reshape(batch, *layout.grid_size * 2)


def position_similarity(model: keras.Model) -> Array:
    """Compute how alike the codes of the positions are.

    Args:
        model: a Functional model of `kvision.models` with learned or sine-cosine
            positions, which its layer "position_embedding" adds.

    Returns:
        (h, w, h, w) float32 array of cosine similarities in [-1, 1]: entry [y, x] is a
        grid, that of the position in row y and column x.

    Raises:
        ValueError: if the model adds no codes to its patches.

    Source: Dosovitskiy et al. 2021, figure 7 (middle).
    """
    codes, grid_size = _codes(model)
    patches = codes[:, codes.shape[1] - math.prod(grid_size) :]
    return _cosines(patches)[0].reshape(*grid_size * 2)


def kept_tokens(model: keras.Model, images: Any) -> dict[str, Array]:
    """Tell which patches a DynamicViT keeps at each stage.

    Args:
        model: a model of `kvision.models.dynamic_vit`.
        images: (B, H, W, C) or (H, W, C) array in 0..255 of the model's input size.

    Returns:
        Name of each pruning layer, in their order -> (B, h, w) bool array.

    Raises:
        ValueError: if the model prunes no tokens, or images do not fit.
    """
    images = checked_images(model, images)
    layers = pruning_layers(model)
    if not layers:
        raise ValueError(
            f"{model.name} keeps all its tokens: it is no model of "
            "kvision.models.dynamic_vit"
        )
    indices = run_to(model, [layer.output[2] for layer in layers], images)
    grid_size = patch_grid(model)
    return {
        layer.name: kept_cells(ops.convert_to_numpy(cells), grid_size) >= 0
        for layer, cells in zip(layers, indices, strict=True)
    }


def fine_patches(model: keras.Model, images: Any) -> Array:
    """Tell which cells a model of mixed resolution shows in fine patches.

    Args:
        model: a model of `kvision.models.mixed_resolution_vit`.
        images: (B, H, W, C) or (H, W, C) array in 0..255 of the model's input size.

    Returns:
        (B, h, w) bool array, a number for each coarse patch.

    Raises:
        ValueError: if all patches of the model have one size, or images do not fit.
    """
    images = checked_images(model, images)
    layers = mixing_layers(model)
    if not layers:
        raise ValueError(
            f"All patches of {model.name} have one size: it is no model of "
            "kvision.models.mixed_resolution_vit"
        )
    tokens, order = layers[0].output
    height, width = layers[0].input[0].shape[1:3]
    count = (tokens.shape[1] - height * width) // 3
    cells = ops.convert_to_numpy(run_to(model, order, images))
    return kept_cells(cells[:, :count], (height, width)) >= 0


def _codes(model: keras.Model) -> tuple[Array, tuple[int, int]]:
    """Return what is added to the tokens (1, N, D), and the grid of the last ones."""
    layers = {layer.name: layer for layer in getattr(model, "layers", ())}
    layer = layers.get("position_embedding")
    if layer is None or hasattr(layer, "convolution"):
        raise ValueError(
            f"{getattr(model, 'name', model)} adds no codes of positions to its "
            'patches. A Vision Transformer with positions="learned", "sincos_1d" or '
            '"sincos_2d" does'
        )
    if hasattr(layer, "scales"):  # patches of two sizes share the codes of the finer
        table = _float32(layer.table)
        return table.reshape(1, -1, table.shape[-1]), table.shape[:2]
    if hasattr(layer, "codes"):
        codes = _float32(layer.codes())
    else:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        codes = _float32(layer(*(np.zeros((1, *x.shape[1:])) for x in inputs)))
    return codes, patch_grid(model)


def _cosines(vectors: Array) -> Array:
    """Return the cosine (B, N, N) of the angle of each two of vectors (B, N, D)."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = vectors / np.maximum(length, 1e-12)
    return unit @ unit.transpose(0, 2, 1)


def _float32(values: Any) -> Array:
    return ops.convert_to_numpy(ops.cast(values, "float32"))
