"""First convolutions for images of other channels than those of the checkpoint."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kvision.weights.places import Convert, Place, Shape

__all__ = ["with_channels"]

Array = np.ndarray


def with_channels(place: Place, shapes: Mapping[str, Shape]) -> Place:
    """Let a first convolution take the kernel of a model for other channels.

    A kernel for grey images is the sum over the channels, so that it answers to a grey
    image as the original did to its three equal channels. Else the channels are
    repeated in their order and scaled, so that the sum of all stays.

    Args:
        place: any place.
        shapes: those of the checkpoint's tensors.

    Returns:
        The place, changed where it is a first convolution of other channels.

    Source: timm, models/_manipulate.py: adapt_input_conv.
    """
    axis = place.channels_axis
    found = shapes.get(place.names[0])
    wanted = place.shapes[0]
    if axis is None or found is None or len(found) != len(wanted):
        return place
    if found[axis] == wanted[axis]:
        return place
    channels = wanted[axis]

    def convert(kernel: Array) -> Array:
        # As the layer has them, in the order of images: in a file they may be BGR.
        return _brought(place.convert(kernel), -2, channels)

    def before(resize: Convert) -> Convert:
        return lambda kernel: resize(_brought(kernel, axis, channels))

    return replace(
        place,
        shapes=((*wanted[:axis], found[axis], *wanted[axis + 1 :]),),
        convert=convert,
        resize=place.resize and before(place.resize),
    )


def _brought(kernel: Array, axis: int, channels: int) -> Array:
    kernel = kernel.astype(np.float32)  # or halves would add up to halves
    if channels == 1:
        return kernel.sum(axis, keepdims=True)
    old = kernel.shape[axis]
    return kernel.take(np.arange(channels) % old, axis) * (old / channels)
