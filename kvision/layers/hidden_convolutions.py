"""Rectified 3x3 convolutions of the heads, with batch normalisation or without."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

__all__ = ["apply_convolutions", "batch_normalization", "hidden_convolutions"]

Tensor = Any
Shape = tuple[int | None, ...]


def batch_normalization(name: str, dtype: Any) -> keras.layers.BatchNormalization:
    """Make a batch normalisation with PyTorch's constants.

    Args:
        name: of the layer.
        dtype: dtype policy.

    Returns:
        The layer, not built.
    """
    return keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, dtype=dtype, name=name
    )


def hidden_convolutions(
    number: int, channels: int, shape: Shape, batch_norm: bool, dtype: Any
) -> tuple[list[keras.layers.Conv2D], list[keras.layers.BatchNormalization]]:
    """Build convolutions that follow each other.

    Args:
        number: how many.
        channels: width of each.
        shape: (None, height, width, channels) of what the first one gets.
        batch_norm: whether each is normalised before it is rectified, and has no bias.
        dtype: dtype policy.

    Returns:
        Convolutions and normalisations; of these none without `batch_norm`.
    """
    convs, norms = [], []
    for i in range(number):
        conv = keras.layers.Conv2D(
            channels,
            3,
            padding="same",
            activation=None if batch_norm else "relu",
            use_bias=not batch_norm,
            kernel_initializer="he_normal",
            dtype=dtype,
            name=f"conv_{i}",
        )
        conv.build(shape)
        convs.append(conv)
        shape = (*shape[:-1], channels)
        if batch_norm:
            norm = batch_normalization(f"norm_{i}", dtype)
            norm.build(shape)
            norms.append(norm)
    return convs, norms


def apply_convolutions(
    x: Tensor,
    convs: Sequence[keras.layers.Layer],
    norms: Sequence[keras.layers.Layer],
    training: bool | None,
) -> Tensor:
    """Run what `hidden_convolutions` has built.

    Args:
        x: (N, h, w, C) tensor.
        convs: the convolutions.
        norms: as many normalisations, or none.
        training: whether statistics of the batch are used.

    Returns:
        (N, h, w, channels) tensor.
    """
    for i, conv in enumerate(convs):
        x = conv(x)
        if norms:
            x = ops.relu(norms[i](x, training=training))
    return x
