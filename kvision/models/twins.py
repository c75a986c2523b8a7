"""Twins: hierarchical Vision Transformers of local and sub-sampled attention."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras

from kvision import layers
from kvision.models.classifier import (
    IMAGENET,
    Normalization,
    classify,
    image_input,
    policy_of,
)
from kvision.models.vit_stages import norm

__all__ = [
    "PCPVT_VARIANTS",
    "SVT_VARIANTS",
    "TwinsSize",
    "build_twins",
    "twins_pcpvt",
    "twins_svt",
]

Tensor = Any
Four = tuple[int, int, int, int]


class TwinsSize(NamedTuple):
    """Numbers that tell one Twins from another, four stages each.

    Attributes:
        embed_dims: width of the grids.
        depths: number of blocks.
        num_heads: attention heads of a block.
        mlp_ratios: width inside a block's MLP, in widths of the grid.
        window_size: side of the windows of every other block, the first of a stage
            included; None where all attention is sub-sampled.
        reductions: side of the squares that one key of sub-sampled attention stands
            for.
    """

    embed_dims: Four
    depths: Four
    num_heads: Four
    mlp_ratios: Four = (4, 4, 4, 4)
    window_size: int | None = None
    reductions: Four = (8, 4, 2, 1)


# Chu et al. 2021, tables 11 and 12; Meituan-AutoML/Twins, gvt.py.
SVT_VARIANTS = {
    "S": TwinsSize((64, 128, 256, 512), (2, 2, 10, 4), (2, 4, 8, 16), window_size=7),
    "B": TwinsSize((96, 192, 384, 768), (2, 2, 18, 2), (3, 6, 12, 24), window_size=7),
    "L": TwinsSize((128, 256, 512, 1024), (2, 2, 18, 2), (4, 8, 16, 32), window_size=7),
}
PCPVT_VARIANTS = {
    name: TwinsSize((64, 128, 320, 512), depths, (1, 2, 5, 8), (8, 8, 4, 4))
    for name, depths in {
        "S": (3, 4, 6, 3),
        "B": (3, 4, 18, 3),
        "L": (3, 8, 27, 3),
    }.items()
}

_PATCH_SIZES = (4, 2, 2, 2)
# Normalisations after convolutions have PyTorch's default, those of the blocks do not.
_CONVOLUTION_EPSILON = 1e-5


def twins_svt(
    variant: str = "S",
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    **arguments: Any,
) -> keras.Model:
    """Build a Twins-SVT: attention in windows and over a summary, by turns.

    Args:
        variant: "S", "B" or "L".
        num_classes: see `kvision.models.vit`.
        class_names: see `kvision.models.vit`.
        image_size: (height, width) of the input in pixels, any.
        **arguments: keyword arguments of `build_twins`, all with defaults.

    Returns:
        Model from images (B, H, W, C) in 0-255 to logits (B, K); to pooled features
        (B, D) without classes; with `features=True` to a dict of grids.

    Raises:
        ValueError: for an argument out of range.
        TypeError: for an unknown argument.

    Source: Chu et al. 2021, Twins: Revisiting the Design of Spatial Attention in Vision
    Transformers, section 3.2.
    """
    return build_twins(
        _size_of(variant, SVT_VARIANTS),
        num_classes=num_classes,
        class_names=class_names,
        image_size=image_size,
        **{"name": f"twins_svt_{variant}", **arguments},
    )


def twins_pcpvt(
    variant: str = "S",
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    **arguments: Any,
) -> keras.Model:
    """Build a Twins-PCPVT: a Pyramid Vision Transformer whose positions are convolved.

    Args:
        variant: "S", "B" or "L".
        num_classes: see `kvision.models.vit`.
        class_names: see `kvision.models.vit`.
        image_size: (height, width) of the input in pixels, any.
        **arguments: keyword arguments of `build_twins`, all with defaults.

    Returns:
        See `twins_svt`.

    Raises:
        ValueError: for an argument out of range.
        TypeError: for an unknown argument.

    Source: Chu et al. 2021, Twins, section 3.1.
    """
    return build_twins(
        _size_of(variant, PCPVT_VARIANTS),
        num_classes=num_classes,
        class_names=class_names,
        image_size=image_size,
        **{"name": f"twins_pcpvt_{variant}", **arguments},
    )


def _size_of(variant: str, variants: dict[str, TwinsSize]) -> TwinsSize:
    if variant not in variants:
        raise ValueError(
            f"variant must be one of {', '.join(variants)}. Received: {variant!r}"
        )
    return variants[variant]


def build_twins(
    size: TwinsSize,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    num_channels: int = 3,
    normalization: Normalization = IMAGENET,
    resize: str = "crop",
    crop_fraction: float = 0.875,
    interpolation: str = "bicubic",
    qkv_bias: bool = True,
    activation: str = "gelu",
    layer_scale: float | None = None,
    epsilon: float = 1e-6,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    recompute: bool = False,
    head_dropout: float = 0.0,
    features: bool = False,
    dtype: Any = None,
    name: str | None = None,
) -> keras.Model:
    """Build the model that `twins_svt` and `twins_pcpvt` document.

    Sizes that no stride divides are rounded up: images and grids are filled up with
    zeros at the bottom and right.

    Args:
        size: widths, depths, heads.
        num_classes: see `kvision.models.vit`.
        class_names: see `kvision.models.vit`.
        image_size: see `kvision.models.vit`.
        num_channels: channels of the input.
        normalization: (mean, std) of the channels in 0-255.
        resize: how photos are brought to the input; see `ImagePreprocessing`.
        crop_fraction: the same.
        interpolation: the same.
        qkv_bias: whether queries, keys and values have a bias.
        activation: of the MLPs; see `kvision.layers.MLP`.
        layer_scale: initial value of the scale of each branch; None for none.
        epsilon: of the layer normalisations in the blocks and at the end.
        dropout: share dropped of the patches of each stage and within blocks.
        attention_dropout: share of the attention scores dropped.
        drop_path: share of samples that skip the branches of the last block; it grows
            from 0 at the first, linearly over the blocks of all stages.
        recompute: gradient checkpointing of every block: less memory, more time, the
            same numbers.
        head_dropout: share of the pooled features dropped.
        features: whether to return grids of all blocks, not logits.
        dtype: dtype policy such as "mixed_bfloat16"; None for the global one.
        name: name of the model.

    Returns:
        Functional model. With `features` its outputs are a dict of grids (B, h, w, D):
        "stage0_block_0"... is what leaves each block; "C2" to "C5", of strides 4 to 32,
        what leaves each stage; "grid" the last one, normalised.

    Raises:
        ValueError: for an argument out of range.
    """
    policy = policy_of(dtype)
    images, grid = image_input(
        image_size,
        num_channels,
        normalization=normalization,
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        dtype=policy,
    )
    outputs = {}
    drop_paths = _linear(drop_path, sum(size.depths))
    for stage in range(4):
        grid = _embedded(grid, size, stage, dropout, policy)
        for block in range(size.depths[stage]):
            label = f"stage{stage}_block_{block}"
            attention = _attention(
                size,
                stage,
                block,
                use_bias=qkv_bias,
                attention_dropout=attention_dropout,
                dropout=dropout,
                dtype=policy,
            )
            mlp = layers.MLP(
                size.embed_dims[stage] * size.mlp_ratios[stage],
                activation,
                dropout,
                dtype=policy,
                name="mlp",
            )
            grid = layers.TransformerBlock(
                attention,
                mlp,
                epsilon,
                layer_scale,
                next(drop_paths),
                recompute,
                dtype=policy,
                name=label,
            )(grid)
            if block == 0:
                grid = layers.PositionEncodingGenerator(
                    dtype=policy, name=f"stage{stage}_position_embedding"
                )(grid)
            outputs[label] = grid
        outputs[f"C{stage + 2}"] = grid
    grid = norm(epsilon, policy)(grid)
    if features:
        return keras.Model(images, {**outputs, "grid": grid}, name=name)
    pooling = keras.layers.GlobalAveragePooling2D(dtype=policy, name="pooling")
    logits = classify(
        pooling(grid), num_classes, class_names, dropout=head_dropout, dtype=policy
    )
    return keras.Model(images, logits, name=name)


def _linear(last: float, count: int) -> Iterator[float]:
    return (last * index / max(count - 1, 1) for index in range(count))


def _embedded(
    grid: Tensor, size: TwinsSize, stage: int, dropout: float, dtype: Any
) -> Tensor:
    """Join the cells of a grid, or the pixels of an image, to those of a stage."""
    grid = layers.PatchEmbedding(
        size.embed_dims[stage],
        _PATCH_SIZES[stage],
        epsilon=_CONVOLUTION_EPSILON,
        dtype=dtype,
        name=f"stage{stage}_patch_embedding",
    )(grid)
    if not dropout:
        return grid
    return keras.layers.Dropout(dropout, dtype=dtype, name=f"stage{stage}_dropout")(
        grid
    )


def _attention(
    size: TwinsSize, stage: int, block: int, **settings: Any
) -> keras.layers.Layer:
    heads = size.num_heads[stage]
    if size.window_size is not None and block % 2 == 0:
        return layers.WindowAttention(
            heads, size.window_size, name="attention", **settings
        )
    return layers.SubsampledAttention(
        heads,
        size.reductions[stage],
        epsilon=_CONVOLUTION_EPSILON,
        name="attention",
        **settings,
    )
