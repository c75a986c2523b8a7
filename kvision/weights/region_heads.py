"""Parts of a detector, and places of the heads on regions as PyTorch keeps them.

PyTorch flattens (C, S, S) where Keras flattens (S, S, C); some projects have the
background before the classes; and here the transposed convolution of the mask head is a
dense layer.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kvision.weights.places import Place, plain

__all__ = [
    "backbone_of",
    "class_masks",
    "class_rows",
    "enlargement",
    "flattened_dense",
]

Array = np.ndarray


def backbone_of(model: Any) -> Any:
    """Find the model within a detector.

    Args:
        model: a detector of `kvision.models`.

    Returns:
        That of its features.
    """
    return next(layer for layer in model.layers if hasattr(layer, "layers"))


def flattened_dense(layer: Any, name: str, channels: int) -> Iterator[Place]:
    """Place the dense layer that comes after pooled regions.

    Args:
        layer: a `keras.layers.Dense`.
        name: of the module in PyTorch.
        channels: of the pooled regions.

    Yields:
        Kernel and bias.
    """
    inputs, outputs = layer.kernel.shape
    side = math.isqrt(inputs // channels)

    def channels_last(kernel: Array) -> Array:
        return kernel.reshape(outputs, channels, side, side).transpose(2, 3, 1, 0)

    yield Place(layer.kernel, (f"{name}.weight",), ((outputs, inputs),), channels_last)
    yield from plain(layer.bias, f"{name}.bias")


def class_rows(layer: Any, name: str, rows: Array) -> Iterator[Place]:
    """Place a dense layer whose outputs belong to classes.

    Args:
        layer: a `keras.layers.Dense`.
        name: of the module in PyTorch.
        rows: for each output here, which row it is there; the last row there is among
            them, or the first is left out.

    Yields:
        Kernel and bias; of a model for other classes they stay fresh.
    """
    count = int(rows.max()) + 1
    yield Place(
        layer.kernel,
        (f"{name}.weight",),
        ((count, layer.kernel.shape[0]),),
        lambda kernel: kernel[rows].T,
        is_head=True,
    )
    yield Place(
        layer.bias, (f"{name}.bias",), ((count,),), lambda b: b[rows], is_head=True
    )


def enlargement(layer: Any, name: str) -> Iterator[Place]:
    """Place the enlargement of a mask head: a 2x2 transposed convolution there.

    Args:
        layer: a `keras.layers.Dense` whose columns are (dy, dx, channels).
        name: of the module in PyTorch.

    Yields:
        Kernel and bias.
    """
    inputs, columns = layer.kernel.shape
    outputs = columns // 4
    yield Place(
        layer.kernel,
        (f"{name}.weight",),
        ((inputs, outputs, 2, 2),),
        lambda kernel: kernel.transpose(0, 2, 3, 1),
    )
    yield Place(layer.bias, (f"{name}.bias",), ((outputs,),), lambda b: np.tile(b, 4))


def class_masks(head: Any, name: str, rows: Array) -> Iterator[Place]:
    """Place the linear maps that make a mask for each class: a 1x1 convolution there.

    Args:
        head: a `kvision.layers.MaskHead`.
        name: of the module in PyTorch.
        rows: as of `class_rows`.

    Yields:
        Kernel and bias; of a model for other classes they stay fresh.
    """
    count = int(rows.max()) + 1
    yield Place(
        head.class_kernel,
        (f"{name}.weight",),
        ((count, head.class_kernel.shape[1], 1, 1),),
        lambda kernel: kernel[rows],
        is_head=True,
    )
    yield Place(
        head.class_bias,
        (f"{name}.bias",),
        ((count,),),
        lambda bias: bias[rows],
        is_head=True,
    )
