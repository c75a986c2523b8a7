"""Vision Transformers on the features of a ResNet."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kvision import layers
from kvision.models.classifier import policy_of
from kvision.models.vit import build_vit, size_of

__all__ = ["GOOGLE", "VARIANTS", "hybrid_vit"]

Tensor = Any
Convolve = Callable[..., Tensor]

# Size of the transformer; blocks of each stage of the ResNet; side of the patches on
# its last map. google-research/vision_transformer, vit_jax/configs/models.py.
VARIANTS: dict[str, tuple[str, tuple[int, ...], int]] = {
    "R+Ti/16": ("Ti", (), 8),
    "R26+S/32": ("S", (2, 2, 2, 2), 1),
    "R50+B/16": ("B", (3, 4, 9), 1),
    "R50+L/32": ("L", (3, 4, 6, 3), 1),
}

# Arguments that compute what Google's weights were trained with; timm runs them with
# its own numbers, which are the default here. google-research/vision_transformer,
# vit_jax/models_resnet.py.
GOOGLE: dict[str, Any] = {
    "activation": "gelu_tanh",
    "standardization_epsilon": 0.0,
    "deviation_epsilon": 1e-5,
}


def hybrid_vit(
    variant: str = "R26+S/32",
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    standardization_epsilon: float = 1e-8,
    deviation_epsilon: float = 0.0,
    **arguments: Any,
) -> keras.Model:
    """Build a Vision Transformer whose patches are features of a ResNet.

    Args:
        variant: "R+Ti/16", "R26+S/32", "R50+B/16" or "R50+L/32".
        num_classes: see `kvision.models.vit`.
        class_names: see `kvision.models.vit`.
        image_size: see `kvision.models.vit`.
        standardization_epsilon: of `kvision.layers.StandardizedConv2D`; `GOOGLE` has
            those of Google's files.
        deviation_epsilon: the same.
        **arguments: keyword arguments of `kvision.models.vit.build_vit`.

    Returns:
        See `kvision.models.vit`.

    Raises:
        ValueError: for an argument out of range.

    Source: Dosovitskiy et al. 2021, section 3.1; Steiner et al. 2022, How to train your
    ViT; timm, models/vision_transformer_hybrid.py.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"variant must be one of {', '.join(VARIANTS)}. Received: {variant!r}"
        )
    transformer, stages, patch_size = VARIANTS[variant]
    size, _ = size_of(f"{transformer}/{patch_size}")
    policy = policy_of(arguments.get("dtype"))
    convolve = functools.partial(
        _convolution,
        dtype=policy,
        standardization_epsilon=standardization_epsilon,
        deviation_epsilon=deviation_epsilon,
    )

    def stem(images: Tensor) -> Tensor:
        embedding = layers.PatchEmbedding(
            size.embed_dim, patch_size, dtype=policy, name="patch_embedding"
        )
        return embedding(resnet_v2(images, stages, convolve, policy))

    name = f"vit_{variant.replace('+', '_').replace('/', '_')}"
    return build_vit(
        size,
        stem,
        num_classes=num_classes,
        class_names=class_names,
        image_size=image_size,
        **{"name": name, **arguments},
    )


def resnet_v2(
    images: Tensor, stages: Sequence[int], convolve: Convolve, dtype: Any
) -> Tensor:
    """Compute the last features of a ResNet of standardised weights.

    Args:
        images: (B, H, W, C), normalised.
        stages: blocks of each stage; their stride is 4, 8, 16, 32.
        convolve: `_convolution` of some epsilons.
        dtype: dtype policy.

    Returns:
        (B, ceil(H / s), ceil(W / s), 64 or 256 * 2^i) tensor.

    Source: Kolesnikov et al. 2020, Big Transfer, section 3.2, in the order convolution,
    normalisation, activation; timm, models/resnetv2.py with preact=False.
    """
    x = convolve(images, 64, 7, 2, "stem")
    x = keras.layers.MaxPooling2D(3, 2, "same", dtype=dtype, name="stem_pool")(x)
    for stage, depth in enumerate(stages):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            name = f"stage{stage}_block{block}"
            x = _bottleneck(x, 256 << stage, stride, name, convolve, dtype)
    return x


def _bottleneck(
    x: Tensor, width: int, stride: int, name: str, convolve: Convolve, dtype: Any
) -> Tensor:
    shortcut = x
    if stride > 1 or x.shape[-1] != width:
        shortcut = convolve(x, width, 1, stride, f"{name}_shortcut", relu=False)
    x = convolve(x, width // 4, 1, 1, f"{name}_1")
    x = convolve(x, width // 4, 3, stride, f"{name}_2")
    x = convolve(x, width, 1, 1, f"{name}_3", relu=False)
    x = keras.layers.Add(dtype=dtype, name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(dtype=dtype, name=f"{name}_relu")(x)


def _convolution(
    x: Tensor,
    width: int,
    side: int,
    stride: int,
    name: str,
    *,
    relu: bool = True,
    dtype: Any,
    **epsilons: float,
) -> Tensor:
    x = layers.StandardizedConv2D(
        width,
        side,
        strides=stride,
        padding="same",
        use_bias=False,
        dtype=dtype,
        name=f"{name}_conv",
        **epsilons,
    )(x)
    x = layers.GroupNormalization(dtype=dtype, name=f"{name}_norm")(x)
    return keras.layers.ReLU(dtype=dtype, name=f"{name}_relu")(x) if relu else x
