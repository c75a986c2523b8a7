"""Vision Transformers that begin with convolutions."""

from collections.abc import Sequence
from typing import Any

import keras

from kvision import layers
from kvision.models.classifier import policy_of
from kvision.models.vit import build_vit, size_of

__all__ = ["conv_vit"]


def conv_vit(
    variant: str = "S/16",
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    stem: str = "early",
    **arguments: Any,
) -> keras.Model:
    """Build a Vision Transformer with a convolutional stem.

    Args:
        variant: see `kvision.models.vit`; the side of the patches is a power of 2.
        num_classes: see `kvision.models.vit`.
        class_names: see `kvision.models.vit`.
        image_size: see `kvision.models.vit`.
        stem: "early": 3x3 convolutions of stride 2, and one block fewer in exchange
            (`ConvStem`); "patchify": ConvNeXt's 4x4 patches, joined (`PatchifyStem`).
        **arguments: keyword arguments of `kvision.models.vit.build_vit`.

    Returns:
        See `kvision.models.vit`.

    Raises:
        ValueError: for an argument out of range.

    Source: Xiao et al. 2021, Early Convolutions Help Transformers See Better; Liu et
    al. 2022, A ConvNet for the 2020s.
    """
    size, (side, width) = size_of(variant)
    if side != width or side & (side - 1) or side < 2:
        raise ValueError(
            "Convolutional stems make square patches of 2, 4, 8, 16 or 32 pixels. "
            f"Received: variant={variant!r}"
        )
    policy = policy_of(arguments.get("dtype"))
    embedding: keras.layers.Layer
    if stem == "early":
        size = size._replace(depth=size.depth - 1)
        embedding = layers.ConvStem(
            size.embed_dim, side.bit_length() - 1, dtype=policy, name="patch_embedding"
        )
    elif stem == "patchify":
        embedding = layers.PatchifyStem(
            size.embed_dim, patch_size=side, dtype=policy, name="patch_embedding"
        )
    else:
        raise ValueError(f'stem must be "early" or "patchify". Received: {stem!r}')
    return build_vit(
        size,
        embedding,
        num_classes=num_classes,
        class_names=class_names,
        image_size=image_size,
        **{"name": f"conv_vit_{variant.replace('/', '_')}", **arguments},
    )
