"""A Vision Transformer with fine patches where there is something to see."""

from collections.abc import Sequence
from typing import Any

import keras

from kvision import layers
from kvision.models.classifier import (
    MINUS_ONE_TO_ONE,
    Normalization,
    classify,
    image_input,
    policy_of,
)
from kvision.models.vit import ViTSize, size_of
from kvision.models.vit_stages import encode, norm, pool

__all__ = ["mixed_resolution_vit"]

Tensor = Any

_SCORERS = ("detail", "given")


def mixed_resolution_vit(
    variant: str = "S/16",
    fine_cells: int | float = 0.25,
    scorer: str = "detail",
    *,
    num_regions: int = 16,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    num_channels: int = 3,
    normalization: Normalization = MINUS_ONE_TO_ONE,
    resize: str = "crop",
    crop_fraction: float = 0.9,
    interpolation: str = "bicubic",
    position_interpolation: str = "bicubic_antialias",
    layer_scale: float | None = None,
    epsilon: float = 1e-6,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    recompute: bool = False,
    pooling: str = "token",
    head_dropout: float = 0.0,
    features: bool = False,
    dtype: Any = None,
    name: str | None = None,
) -> keras.Model:
    """Build a Vision Transformer of coarse patches, some of which are shown finely.

    The image is cut into G cells of the variant's patch size. k of them are shown as
    2 x 2 patches of half the side, so that every image has G + 3k patches, whatever it
    shows. The two sizes have patch embeddings of their own. (One embedding for both
    would need coarse cells to be shrunk to the size of fine patches, which throws away
    three quarters of their pixels before anything has looked at them.) They share the
    table of positions.

    Example:
        model = kvision.models.mixed_resolution_vit("S/16", class_names=["cat", "dog"])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adamw", loss, metrics=["accuracy"])

    Args:
        variant: as of `kvision.models.vit`; the side is that of the coarse patches,
            even: "S/16" has fine patches of 8 x 8.
        fine_cells: a number k of cells, or a float in [0, 1], their share.
        scorer: who says which cells are fine. "detail": those that lose most when the
            image is blurred (`kvision.layers.DetailScores`). "given": the model takes
            a dict of "images" and "regions" (B, num_regions, 4), boxes x1, y1, x2, y2
            in pixels of the input, rows of zeros as padding; cells they cover come
            first, the rest of the budget goes by detail.
        num_regions: boxes of an image for "given".
        num_classes: as of `kvision.models.vit`.
        class_names: as of `kvision.models.vit`.
        image_size: as of `kvision.models.vit`.
        num_channels: as of `kvision.models.vit.build_vit`, and so all that follow.
        normalization: see there.
        resize: see there.
        crop_fraction: see there.
        interpolation: see there.
        position_interpolation: see there.
        layer_scale: see there.
        epsilon: see there.
        dropout: see there.
        attention_dropout: see there.
        drop_path: see there.
        recompute: see there.
        pooling: see there; "average" and "attention" count a fine patch as much as a
            coarse one.
        head_dropout: see there.
        features: whether to return tokens and grids of all blocks, not logits.
        dtype: dtype policy such as "mixed_bfloat16"; None for the global one.
        name: name of the model.

    Returns:
        Functional model from images (B, H, W, C) in 0-255 (and regions) to logits
        (B, K), or to pooled features (B, D) without classes. With `features` its
        outputs are a dict: "block_0"... (B, 1 + G + 3k, D) is what leaves each block,
        "tokens" the last one, normalised: the class token, four fine patches of each
        of k cells, the other cells. "block_0_grid"... and "grid" (B, 2h, 2w, D) are
        the same laid out in the fine grid, a coarse token in all four places of its
        cell. "cells" (B, G) int32 is the order of the cells, counted row by row; the
        first k are fine.

    Raises:
        ValueError: for an argument out of range.

    Source: Ronen et al. 2023, Vision Transformers with Mixed-Resolution Tokenization,
    for two sizes instead of a tree of them.
    """
    if scorer not in _SCORERS:
        raise ValueError(
            f"scorer must be one of {', '.join(map(repr, _SCORERS))}. Received: "
            f"{scorer!r}"
        )
    policy = policy_of(dtype)
    size, patch_size = size_of(variant)
    images, normalized = image_input(
        image_size,
        num_channels,
        normalization=normalization,
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        dtype=policy,
    )
    inputs, scores = _scored(images, patch_size, scorer, num_regions)
    tokens, cells, grid = _mixed(
        normalized,
        scores,
        size,
        patch_size,
        fine_cells,
        position_interpolation,
        policy,
    )
    if dropout:
        tokens = keras.layers.Dropout(dropout, dtype=policy, name="dropout")(tokens)
    blocks = encode(
        tokens,
        grid,
        depth=size.depth,
        num_heads=size.num_heads,
        mlp_dim=size.mlp_dim,
        num_prefix_tokens=1,
        positions="learned",
        qkv_bias=True,
        qk_norm=False,
        activation="gelu",
        layer_scale=layer_scale,
        epsilon=epsilon,
        dropout=dropout,
        attention_dropout=attention_dropout,
        drop_path=drop_path,
        drop_path_rule="linear",
        recompute=recompute,
        dtype=policy,
    )
    tokens = norm(epsilon, policy)(blocks[-1])
    name = name or f"mixed_resolution_vit_{variant.replace('/', '_')}"
    if features:
        outputs = _features(blocks, tokens, cells, grid, policy)
        return keras.Model(inputs, outputs, name=name)
    pooled = pool(
        tokens,
        pooling,
        num_prefix_tokens=1,
        num_heads=size.num_heads,
        mlp_dim=size.mlp_dim,
        epsilon=epsilon,
        dtype=policy,
    )
    logits = classify(
        pooled, num_classes, class_names, dropout=head_dropout, dtype=policy
    )
    return keras.Model(inputs, logits, name=name)


def _scored(
    images: Tensor, patch_size: tuple[int, int], scorer: str, num_regions: int
) -> tuple[Any, Tensor]:
    """Return the inputs of the model and the scores of the cells."""
    scores = layers.DetailScores(patch_size, name="detail_scores")(images)
    if scorer == "detail":
        return images, scores
    if num_regions < 1:
        raise ValueError(f"num_regions must be 1 or more. Received: {num_regions}")
    regions = keras.Input((num_regions, 4), dtype="float32", name="regions")
    scores = layers.RegionScores(patch_size, name="region_scores")(scores, regions)
    return {"images": images, "regions": regions}, scores


def _mixed(
    images: Tensor,
    scores: Tensor,
    size: ViTSize,
    patch_size: tuple[int, int],
    fine_cells: int | float,
    interpolation: str,
    dtype: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Embed patches of both sizes and choose: tokens, order of cells, coarse grid."""
    sides = {"patch_embedding": 1, "fine_patch_embedding": 2}
    coarse, fine = (
        layers.PatchEmbedding(
            size.embed_dim,
            (patch_size[0] // divisor, patch_size[1] // divisor),
            use_bias=False,  # the code of the size is one
            dtype=dtype,
            name=name,
        )(images)
        for name, divisor in sides.items()
    )
    place = layers.MultiScalePositionEmbedding(
        interpolation, dtype=dtype, name="position_embedding"
    )
    mix = layers.MixedPatches(fine_cells, dtype=dtype, name="mixed_patches")
    patches, cells = mix(*place(coarse, fine), scores)
    tokens = layers.ClassToken(dtype=dtype, name="class_token")(patches)
    return tokens, cells, coarse


def _features(
    blocks: list[Tensor], tokens: Tensor, cells: Tensor, grid: Tensor, dtype: Any
) -> dict[str, Tensor]:
    """Name the tokens of every block, and lay their patches out."""
    outputs = {"tokens": tokens, "cells": cells}
    named = {f"block_{number}": block for number, block in enumerate(blocks)}
    for label, values in [*named.items(), ("", tokens)]:
        name = f"{label}_grid".lstrip("_")
        to_grid = layers.MixedTokensToGrid(1, dtype=dtype, name=name)
        outputs[name] = to_grid(values, cells, grid)
    return {**named, **outputs}
