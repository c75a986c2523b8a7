"""Finding the transformer blocks of a Functional model and what enters them.

Blocks are known by what they have, not by their class: `norm1` and `attention`, as
`kvision.layers.TransformerBlock` has.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kvision.viz.token_layouts import (
    Layout,
    SummaryLayout,
    TokenLayout,
    WindowLayout,
)

__all__ = [
    "BlockScores",
    "block_scores",
    "checked_images",
    "chosen_blocks",
    "kept_cells",
    "mixed_cells",
    "mixing_layers",
    "patch_grid",
    "placing_tensors",
    "pruning_layers",
    "run_to",
    "token_layout",
    "transformer_blocks",
]

Array = np.ndarray
Tensor = Any
Block = int | str


@dataclass(frozen=True, eq=False)
class BlockScores:
    """What the attention of one block did to a batch.

    Args:
        name: of the block.
        scores: (B, H, N, M) float32 array in [0, 1].
        layout: where queries and keys are on the grid of patches.
    """

    name: str
    scores: Array
    layout: Layout


def transformer_blocks(model: Any) -> list[keras.layers.Layer]:
    """List the transformer blocks of a model in their order.

    Args:
        model: a Functional model.

    Returns:
        Its layers that have `norm1` and `attention`.

    Raises:
        ValueError: if the model is not Functional, or has no such layers.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            "Expected a Functional keras.Model with transformer blocks, such as "
            f"kvision.models.vit builds. Received: {type(model).__name__}"
        )
    blocks = [layer for layer in model.layers if _is_block(layer)]
    if blocks:
        return blocks
    for layer in model.layers:
        if isinstance(layer, keras.Model) and any(map(_is_block, layer.layers)):
            raise ValueError(
                f"The transformer blocks of {model.name} are inside its layer "
                f"{layer.name!r}: give model.get_layer({layer.name!r}) instead, and "
                "images as that layer gets them"
            )
    raise ValueError(
        f"{model.name} has no transformer blocks (layers with `norm1` and `attention`, "
        "as kvision.models.vit and its relatives have)"
    )


def chosen_blocks(
    model: keras.Model, blocks: "Sequence[Block] | Block | None"
) -> list[keras.layers.Layer]:
    """Find blocks by their numbers or names.

    Args:
        model: a Functional model.
        blocks: numbers (-1 is the last), names, or None for all.

    Returns:
        The blocks, in the order asked for.

    Raises:
        ValueError: if there is no such block.
    """
    known = transformer_blocks(model)
    if blocks is None:
        return known
    if isinstance(blocks, int | str):
        blocks = [blocks]
    names = [block.name for block in known]
    chosen = []
    for block in blocks:
        if isinstance(block, str) and block in names:
            chosen.append(known[names.index(block)])
        elif isinstance(block, int) and -len(known) <= block < len(known):
            chosen.append(known[block])
        else:
            raise ValueError(
                f"{model.name} has {len(known)} blocks, {names[0]!r} (0) to "
                f"{names[-1]!r} ({len(known) - 1}). Received: {block!r}"
            )
    return chosen


def checked_images(model: keras.Model, images: Any) -> Array:
    """Bring images to a batch of the model's input, or say what is wrong.

    Args:
        model: a Functional model.
        images: (B, H, W, C) or (H, W, C) array in 0..255 of the input's size.

    Returns:
        (B, H, W, C) array.

    Raises:
        ValueError: if they are not of the input's size.
    """
    shape = tuple(model.inputs[0].shape[1:])
    images = np.asarray(images)
    images = images[None] if images.ndim == 3 else images
    if images.shape[1:] != shape or not len(images):
        raise ValueError(
            f"Expected images of the model's input size, (B, {shape[0]}, {shape[1]}, "
            f"{shape[2]}). Received: {images.shape}. For photos of any size use "
            "kvision.explain, or kvision.data.preparation.prepare_image"
        )
    return images


def run_to(model: keras.Model, tensors: Any, images: Array) -> Any:
    """Compute tensors within a model, and nothing behind them.

    Args:
        model: a Functional model.
        tensors: structure of Keras tensors of its graph.
        images: (B, H, W, C) array.

    Returns:
        The same structure of values.
    """
    # Flat, and at least two: Keras takes a list of one apart.
    flat = keras.tree.flatten(tensors)
    values = keras.Model(model.input, [*flat, model.inputs[0]])(images, training=False)
    return keras.tree.pack_sequence_as(tensors, values[:-1])


def block_scores(
    model: keras.Model, images: Array, blocks: Sequence[keras.layers.Layer]
) -> Iterator[BlockScores]:
    """Compute the attention of some blocks, one at a time.

    Only what enters the blocks, (B, N, D) each, is held for all of them. The model
    itself never makes its (B, H, N, N) numbers.

    Args:
        model: a Functional model.
        images: (B, H, W, C) array of its input size.
        blocks: those of its blocks to look at.

    Yields:
        One for each block.
    """
    taps = [(_inputs(block), placing_tensors(model, block)) for block in blocks]
    values = run_to(model, taps, images)
    for block, ((tokens, *others), places) in zip(blocks, values, strict=True):
        if not _is_scoring(block):
            raise ValueError(
                f"The attention of {block.name!r} ({type(block.attention).__name__}) "
                "takes no return_attention_scores=True"
            )
        # What says which tokens are kept, (B, N), matters in training only.
        bias = [value for value in others if len(value.shape) == 4]
        _, scores = block.attention(
            block.norm1(tokens),
            return_attention_scores=True,
            training=False,
            **({"bias": bias[0]} if bias else {}),
        )
        scores = ops.convert_to_numpy(ops.cast(scores, "float32"))
        yield BlockScores(block.name, scores, _layout(model, block, tokens, places))


def pruning_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """List the layers that give up tokens, as `kvision.layers.TokenPruning` does.

    Args:
        model: a Functional model.

    Returns:
        Its layers that have a `keep_ratio`, in their order; their third output is
        (B, K) int32, the cells of the patches that are left.
    """
    return [layer for layer in model.layers if hasattr(layer, "keep_ratio")]


def mixing_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """List the layers that join patches of two sizes: `kvision.layers.MixedPatches`.

    Args:
        model: a Functional model.

    Returns:
        Its layers that have `fine_cells`; their second output is (B, h * w) int32, the
        cells in descending order, the first of which are fine.
    """
    return [layer for layer in model.layers if hasattr(layer, "fine_cells")]


def placing_tensors(model: keras.Model, block: keras.layers.Layer) -> list[Any]:
    """Find the tensor of a graph that says where the tokens of a block are.

    Args:
        model: a Functional model.
        block: one of its blocks.

    Returns:
        That of the last pruning or mixing before the block, or nothing.
    """
    before = model.layers[: model.layers.index(block)]
    for layer in reversed(before):
        if hasattr(layer, "keep_ratio"):
            return [layer.output[2]]
        if hasattr(layer, "fine_cells"):
            return [layer.output[1]]
    return []


def token_layout(
    model: keras.Model, tokens: Any, places: Sequence[Any] = ()
) -> TokenLayout:
    """Say where the tokens that enter or leave a block are.

    Args:
        model: a Functional model.
        tokens: (B, N, D) tensor.
        places: value of `placing_tensors`.

    Returns:
        The layout.

    Raises:
        ValueError: if the model has no layer "patch_embedding" to tell the grid.
    """
    prefix = sum(getattr(layer, "num_tokens", 0) for layer in model.layers)
    mixing = mixing_layers(model)
    if mixing:
        coarse = tuple(mixing[0].input[0].shape[1:3])
        cells = mixed_cells(_numpy(places[0]), coarse, tokens.shape[1] - prefix)
    elif places:
        cells = kept_cells(_numpy(places[0]), patch_grid(model))
    else:
        height, width = patch_grid(model)
        numbers = np.arange(height * width, dtype=np.int32).reshape(1, height, width)
        cells = numbers.repeat(len(tokens), axis=0)
    names = {layer.name for layer in model.layers}
    return TokenLayout(cells, prefix, "class_token" in names)


def kept_cells(indices: Array, grid_size: tuple[int, int]) -> Array:
    """Turn the cells of tokens into the tokens of cells.

    Args:
        indices: (B, K) integers, a cell for each token, row by row.
        grid_size: (h, w).

    Returns:
        (B, h, w) int32 array: number of the token in each cell, or -1.
    """
    cells = np.full((len(indices), grid_size[0] * grid_size[1]), -1, np.int32)
    np.put_along_axis(cells, indices, np.arange(indices.shape[1])[None], axis=1)
    return cells.reshape(-1, *grid_size)


def mixed_cells(order: Array, grid_size: tuple[int, int], num_patches: int) -> Array:
    """Turn the order of coarse cells into the tokens of fine cells.

    Args:
        order: (B, h * w) integers: coarse cells, the first k of which are shown in four
            fine patches each.
        grid_size: (h, w).
        num_patches: h * w + 3 k.

    Returns:
        (B, 2 h, 2 w) int32 array: number of the token in each fine cell.
    """
    total = order.shape[1]
    fine = (num_patches - total) // 3
    # Four numbers for each coarse cell, in the order of tokens.
    first = np.concatenate([4 * np.arange(fine), np.arange(fine, total) + 3 * fine])
    steps = np.where(np.arange(total)[:, None] < fine, np.arange(4), 0)
    tokens = np.zeros((len(order), total, 4), np.int32)
    np.put_along_axis(tokens, order[..., None], (first[:, None] + steps)[None], axis=1)
    height, width = grid_size
    cells = tokens.reshape(-1, height, width, 2, 2).transpose(0, 1, 3, 2, 4)
    return cells.reshape(-1, 2 * height, 2 * width)


def patch_grid(model: keras.Model) -> tuple[int, int]:
    """Read the size of the grid of patches.

    Args:
        model: a Functional model whose patches leave a layer "patch_embedding".

    Returns:
        (h, w).

    Raises:
        ValueError: if there is no such layer.
    """
    for layer in model.layers:
        if layer.name == "patch_embedding":
            return tuple(layer.output.shape[1:3])
    raise ValueError(
        f'{model.name} has no layer "patch_embedding" that gives a grid of patches '
        "(B, h, w, D), so it is not known where its tokens are"
    )


def _layout(
    model: keras.Model, block: keras.layers.Layer, inputs: Any, places: Sequence[Any]
) -> Layout:
    """Read from a block's attention where its queries and keys are."""
    if len(inputs.shape) == 3:
        return token_layout(model, inputs, places)
    grid_size = tuple(inputs.shape[1:3])
    if hasattr(block.attention, "window_size"):
        return WindowLayout(grid_size, block.attention.window_size)
    return SummaryLayout(grid_size, block.attention.reduction)


def _inputs(block: keras.layers.Layer) -> list[Any]:
    """Return the Keras tensors that enter a block: tokens, and a bias if there is."""
    tensors = block.input
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]


def _is_block(layer: Any) -> bool:
    return hasattr(layer, "norm1") and hasattr(layer, "attention")


def _is_scoring(block: Any) -> bool:
    arguments = inspect.signature(block.attention.call).parameters
    return "return_attention_scores" in arguments


def _numpy(values: Any) -> Array:
    return ops.convert_to_numpy(values)
