"""Where the tensors of a checkpoint go in a model.

A layout, such as `kvision.weights.timm`, lists a place for each variable of a model.
The functions here make the places of common layers that were saved by PyTorch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Convert",
    "Place",
    "Shape",
    "convolution",
    "dense",
    "depthwise",
    "hwio",
    "norm",
    "plain",
    "side_by_side",
    "with_norms",
]

Array = np.ndarray
Shape = tuple[int, ...]
Convert = Callable[..., Array]


@dataclass(frozen=True)
class Place:
    """A variable, and the tensors of a checkpoint that it is made of.

    Attributes:
        variable: Keras variable.
        names: of the tensors.
        shapes: which they have if they are of the model's size.
        convert: function of these tensors to the values of the variable.
        resize: the same for tensors of other shapes, such as positions of another grid;
            None where there is no such rule. It raises `ValueError` for shapes that it
            cannot bring to the model's.
        is_head: whether the variable may keep its first values where the shapes differ,
            since the classes are others.
        channels_axis: which axis of the tensor counts the channels of the images, in a
            first convolution.
    """

    variable: Any
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    convert: Convert
    resize: Convert | None = None
    is_head: bool = False
    channels_axis: int | None = None


def plain(variable: Any, name: str, is_head: bool = False) -> Iterator[Place]:
    """Place a tensor that is taken as it is.

    Args:
        variable: Keras variable.
        name: of the tensor.
        is_head: as of `Place`.

    Yields:
        One place.
    """
    yield Place(variable, (name,), (tuple(variable.shape),), _same, is_head=is_head)


def norm(layer: Any, name: str) -> Iterator[Place]:
    """Place scale and shift of a normalisation, and the statistics of one of batches.

    Args:
        layer: a normalisation layer.
        name: of the module in PyTorch.

    Yields:
        Two places, or four.
    """
    variables = {
        "weight": layer.gamma,
        "bias": layer.beta,
        "running_mean": getattr(layer, "moving_mean", None),
        "running_var": getattr(layer, "moving_variance", None),
    }
    for kind, variable in variables.items():
        if variable is not None:
            yield from plain(variable, f"{name}.{kind}")


def dense(layer: Any, name: str, is_head: bool = False) -> Iterator[Place]:
    """Place a dense layer: PyTorch keeps outputs x inputs.

    Args:
        layer: a layer with `kernel` and `bias`, or None for no bias.
        name: of the module in PyTorch.
        is_head: as of `Place`.

    Yields:
        Kernel, and bias if there is one.
    """
    inputs, outputs = layer.kernel.shape
    shape = (outputs, inputs)
    yield Place(
        layer.kernel, (f"{name}.weight",), (shape,), np.transpose, is_head=is_head
    )
    if layer.bias is not None:
        yield from plain(layer.bias, f"{name}.bias", is_head)


def side_by_side(layer: Any, names: Sequence[str]) -> Iterator[Place]:
    """Place a dense layer that computes at once what PyTorch has several for.

    Args:
        layer: a layer with `kernel` and `bias`, or None for no bias.
        names: of the modules, in the order of the outputs, which they share equally.

    Yields:
        Kernel, and bias if there is one.
    """
    inputs, outputs = layer.kernel.shape
    share = outputs // len(names)
    weights = tuple(f"{name}.weight" for name in names)
    shapes: tuple[Shape, ...] = ((share, inputs),) * len(names)
    yield Place(layer.kernel, weights, shapes, lambda *k: np.concatenate(k).T)
    if layer.bias is not None:
        biases = tuple(f"{name}.bias" for name in names)
        shapes = ((share,),) * len(names)
        yield Place(layer.bias, biases, shapes, lambda *b: np.concatenate(b))


def convolution(
    kernel: Any,
    bias: Any,
    name: str,
    resize: Convert | None = None,
    is_first: bool = False,
) -> Iterator[Place]:
    """Place a convolution: PyTorch keeps outputs x inputs x height x width.

    Args:
        kernel: variable (h, w, inputs, outputs).
        bias: variable (outputs,), or None.
        name: of the module in PyTorch.
        resize: as of `Place`, for the kernel.
        is_first: whether its inputs are the channels of the images.

    Yields:
        Kernel, and bias if there is one.
    """
    height, width, inputs, outputs = kernel.shape
    shape = (outputs, inputs, height, width)
    axis = 1 if is_first else None
    yield Place(kernel, (f"{name}.weight",), (shape,), hwio, resize, channels_axis=axis)
    if bias is not None:
        yield from plain(bias, f"{name}.bias")


def depthwise(layer: Any, name: str) -> Iterator[Place]:
    """Place a depthwise convolution: PyTorch keeps channels x 1 x height x width.

    Args:
        layer: a `keras.layers.DepthwiseConv2D` with bias.
        name: of the module in PyTorch.

    Yields:
        Kernel and bias.
    """
    height, width, channels, _ = layer.kernel.shape
    shape = (channels, 1, height, width)
    yield Place(
        layer.kernel, (f"{name}.weight",), (shape,), lambda k: k.transpose(2, 3, 0, 1)
    )
    yield from plain(layer.bias, f"{name}.bias")


def with_norms(convs: Sequence[Any], norms: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Pair convolutions with the normalisations that follow them.

    Args:
        convs: layers.
        norms: as many layers, or none.

    Returns:
        Pairs, whose second is None where nothing follows.
    """
    return list(zip(convs, norms or [None] * len(convs), strict=True))


def hwio(kernel: Array) -> Array:
    """Turn outputs x inputs x height x width into Keras' order.

    Args:
        kernel: (O, I, h, w) array.

    Returns:
        (h, w, I, O) array.
    """
    return kernel.transpose(2, 3, 1, 0)


def _same(values: Array) -> Array:
    return values
