"""Vision Transformers, and what all of the family share between stem and head."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

from kvision import layers
from kvision.models.classifier import (
    MINUS_ONE_TO_ONE,
    Normalization,
    classify,
    image_input,
    policy_of,
)
from kvision.models.vit_stages import embed, encode, grids_of, norm, pool

__all__ = ["VARIANTS", "ViTSize", "build_vit", "patches_of", "size_of", "vit"]

Tensor = Any
Stem = Callable[[Tensor], Tensor]


class ViTSize(NamedTuple):
    """Numbers that tell one Vision Transformer from another.

    Attributes:
        embed_dim: D, width of the tokens.
        depth: number of blocks.
        num_heads: attention heads of a block.
        mlp_dim: width inside a block's MLP.
    """

    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int


# Dosovitskiy et al. 2021, table 1 (B, L, H); Touvron et al. 2021, DeiT, table 1 (Ti,
# S); Touvron et al. 2022, DeiT III, table 1 (M); Zhai et al. 2022, table 2 (g); Hassani
# et al. 2021, ViT-Lite (SHI-Labs/Compact-Transformers, src/vit.py).
VARIANTS = {
    "Lite-2": ViTSize(128, 2, 2, 128),
    "Lite-4": ViTSize(128, 4, 2, 128),
    "Lite-6": ViTSize(256, 6, 4, 512),
    "Lite-7": ViTSize(256, 7, 4, 512),
    "Ti": ViTSize(192, 12, 3, 768),
    "S": ViTSize(384, 12, 6, 1536),
    "M": ViTSize(512, 12, 8, 2048),
    "B": ViTSize(768, 12, 12, 3072),
    "L": ViTSize(1024, 24, 16, 4096),
    "H": ViTSize(1280, 32, 16, 5120),
    "g": ViTSize(1408, 40, 16, 6144),
}


def vit(
    variant: str = "B/16",
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    patch_form: str = "conv",
    patch_bias: bool = True,
    **arguments: Any,
) -> keras.Model:
    """Build a Vision Transformer.

    Example:
        model = kvision.models.vit("S/16", class_names=["cat", "dog"])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adamw", loss, metrics=["accuracy"])

    Args:
        variant: "Ti", "S", "M", "B", "L", "H" or "g", or for little data and images of
            32 pixels "Lite-2", "Lite-4", "Lite-6" or "Lite-7"; a slash; the side of
            the patches in pixels, any: "B/16"; "B/16x8" has patches 16 high and 8
            wide.
        num_classes: K; 0 for pooled features instead of logits. By default the number
            of names, or 1000.
        class_names: names of the classes.
        image_size: (height, width) of the input in pixels, any; sides that are no
            multiple of the patch are filled up.
        patch_form: "conv" or "dense", equal in what they compute.
        patch_bias: whether patches get a bias.
        **arguments: keyword arguments of `build_vit`, all with defaults.

    Returns:
        Model from images (B, H, W, C) in 0-255 to logits (B, K); to pooled features
        (B, D) without classes; with `features=True` to a dict of tokens and grids.

    Raises:
        ValueError: for an argument out of range.
        TypeError: for an unknown argument.

    Source: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words.
    """
    size, stem = patches_of(variant, patch_form, patch_bias, arguments.get("dtype"))
    return build_vit(
        size,
        stem,
        num_classes=num_classes,
        class_names=class_names,
        image_size=image_size,
        **{"name": f"vit_{variant.replace('/', '_')}", **arguments},
    )


def patches_of(
    variant: str, form: str = "conv", use_bias: bool = True, dtype: Any = None
) -> tuple[ViTSize, layers.PatchEmbedding]:
    """Make the stem of a plain Vision Transformer.

    Args:
        variant: see `vit`.
        form: "conv" or "dense", equal in what they compute.
        use_bias: whether patches get a bias.
        dtype: dtype policy; None for the global one.

    Returns:
        The numbers of the variant and its patch embedding.
    """
    size, patch_size = size_of(variant)
    stem = layers.PatchEmbedding(
        size.embed_dim,
        patch_size,
        form,
        use_bias,
        dtype=policy_of(dtype),
        name="patch_embedding",
    )
    return size, stem


def size_of(variant: str) -> tuple[ViTSize, tuple[int, int]]:
    """Read the name of a variant.

    Args:
        variant: such as "B/16" or "B/16x8".

    Returns:
        Its numbers, and (height, width) of its patches in pixels.

    Raises:
        ValueError: for a name that is not of this form.
    """
    size, _, patch = variant.partition("/")
    sides = [int(side) if side.isdecimal() else 0 for side in patch.split("x")]
    if size not in VARIANTS or len(sides) > 2 or min(sides) < 1:
        raise ValueError(
            f"variant must be one of {', '.join(VARIANTS)}, a slash and the side of "
            f'the patches in pixels, such as "B/16". Received: {variant!r}'
        )
    return VARIANTS[size], (sides[0], sides[-1])


def build_vit(
    size: ViTSize,
    stem: Stem,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    num_channels: int = 3,
    normalization: Normalization = MINUS_ONE_TO_ONE,
    resize: str = "crop",
    crop_fraction: float = 0.9,
    interpolation: str = "bicubic",
    class_token: bool = True,
    distillation_token: bool = False,
    num_register_tokens: int = 0,
    positions: str | None = "learned",
    prefix_positions: bool = True,
    position_interpolation: str = "bicubic_antialias",
    position_grid: tuple[int, int] | None = None,
    patch_dropout: float = 0.0,
    pre_norm: bool = False,
    qkv_bias: bool = True,
    qk_norm: bool = False,
    activation: str = "gelu",
    layer_scale: float | None = None,
    epsilon: float = 1e-6,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    drop_path_rule: str = "linear",
    recompute: bool = False,
    pooling: str = "token",
    norm_after_pooling: bool = False,
    representation_dim: int | None = None,
    head_dropout: float = 0.0,
    features: bool = False,
    dtype: Any = None,
    name: str | None = None,
) -> keras.Model:
    """Build the Vision Transformer that `vit` and its relatives document.

    Args:
        size: width, depth, heads.
        stem: function of normalised images (B, H, W, C) to a grid (B, h, w, D).
        num_classes: see `vit`.
        class_names: see `vit`.
        image_size: see `vit`.
        num_channels: channels of the input.
        normalization: (mean, std) of the channels in 0-255.
        resize: how photos are brought to the input; see `ImagePreprocessing`.
        crop_fraction: the same.
        interpolation: the same.
        class_token: whether there is one.
        distillation_token: whether there is one, with a head of its own; the logits
            are the mean of both heads.
        num_register_tokens: how many.
        positions: "learned", "sincos_1d", "sincos_2d", "relative" (a bias in every
            block), "convolution" (after the first block) or None.
        prefix_positions: whether prefix tokens have codes too: positions are then added
            after the tokens are joined, else before (`no_embed_class` of timm).
        position_interpolation: how learned codes are brought to another grid; see
            `kvision.ops.resampling`.
        position_grid: (height, width) of the learned table; by default the input's.
        patch_dropout: share of the patches that training leaves out.
        pre_norm: whether tokens are normalised before the first block.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether each head's queries and keys are normalised.
        activation: of the MLPs: "gelu", "gelu_tanh", "quick_gelu", or "swiglu".
        layer_scale: initial value of the scale of each branch; None for none.
        epsilon: of the layer normalisations.
        dropout: share dropped of embedded tokens and within blocks.
        attention_dropout: share of the attention scores dropped.
        drop_path: share of samples that skip the branches of the last block.
        drop_path_rule: "linear" from 0 at the first block, or "constant".
        recompute: gradient checkpointing of every block: less memory, more time, the
            same numbers.
        pooling: "token" (the class token), "average" of the patches, or "attention".
        norm_after_pooling: whether the last normalisation follows the pooling.
        representation_dim: width of a dense layer with tanh before the head.
        head_dropout: share of the pooled features dropped.
        features: whether to return tokens and grids of all blocks, not logits.
        dtype: dtype policy such as "mixed_bfloat16"; None for the global one.
        name: name of the model.

    Returns:
        Functional model. With `features` its outputs are a dict: "block_0"...
        (B, P + N, D) is what leaves each block, "block_0_grid"... (B, h, w, D) its
        patches; "tokens" and "grid" are the last ones, normalised.

    Raises:
        ValueError: for an argument out of range.
    """
    policy = policy_of(dtype)
    images, normalized = image_input(
        image_size,
        num_channels,
        normalization=normalization,
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        dtype=policy,
    )
    grid = stem(normalized)
    tokens = embed(
        grid,
        class_token=class_token,
        distillation_token=distillation_token,
        num_register_tokens=num_register_tokens,
        positions=positions,
        prefix_positions=prefix_positions,
        position_interpolation=position_interpolation,
        position_grid=position_grid,
        dropout=dropout,
        patch_dropout=patch_dropout,
        dtype=policy,
    )
    if pre_norm:
        tokens = norm(epsilon, policy, "pre_norm")(tokens)
    num_prefix_tokens = class_token + distillation_token + num_register_tokens
    blocks = encode(
        tokens,
        grid,
        depth=size.depth,
        num_heads=size.num_heads,
        mlp_dim=size.mlp_dim,
        num_prefix_tokens=num_prefix_tokens,
        positions=positions,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        activation=activation,
        layer_scale=layer_scale,
        epsilon=epsilon,
        dropout=dropout,
        attention_dropout=attention_dropout,
        drop_path=drop_path,
        drop_path_rule=drop_path_rule,
        recompute=recompute,
        dtype=policy,
    )
    tokens = blocks[-1]
    if features or not norm_after_pooling:
        tokens = norm(epsilon, policy)(tokens)
    if features:
        outputs = grids_of(blocks, tokens, grid, num_prefix_tokens, policy)
        return keras.Model(images, outputs, name=name)
    pooled = pool(
        tokens,
        pooling,
        num_prefix_tokens=num_prefix_tokens,
        num_heads=size.num_heads,
        mlp_dim=size.mlp_dim,
        epsilon=epsilon,
        dtype=policy,
        activation=activation,
    )
    if norm_after_pooling:
        pooled = norm(epsilon, policy)(pooled)
    if representation_dim is not None:
        represent = keras.layers.Dense(
            representation_dim, "tanh", dtype=policy, name="representation"
        )
        pooled = represent(pooled)
    head = functools.partial(
        classify,
        num_classes=num_classes,
        class_names=class_names,
        dropout=head_dropout,
        dtype=policy,
    )
    logits = head(pooled)
    if distillation_token:
        second = layers.TokenPooling(1, dtype=policy, name="distillation_pooling")
        mean = layers.MeanLogits(name="logits")
        logits = mean(logits, head(second(tokens), name="head_dist"))
    return keras.Model(images, logits, name=name)
