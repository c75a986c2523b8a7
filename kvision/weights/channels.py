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
    (wanted,) = place.shapes[:1]
    if axis is None or found is None or len(found) != len(wanted):
        return place
    if found[axis] == wanted[axis]:
        return place
    expected = (*wanted[:axis], found[axis], *wanted[axis + 1 :])

    def after(convert: Convert) -> Convert:
        return lambda kernel: convert(_brought(kernel, axis, wanted[axis]))

    return replace(
        place,
        shapes=(expected,),
        convert=after(place.convert),
        resize=place.resize and after(place.resize),
    )


def _brought(kernel: Array, axis: int, channels: int) -> Array:
    if channels == 1:
        return kernel.sum(axis, keepdims=True)
    old = kernel.shape[axis]
    return kernel.take(np.arange(channels) % old, axis) * (old / channels)
