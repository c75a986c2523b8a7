"""From tensors of a checkpoint to variables of a model, one place at a time."""

import itertools
from collections.abc import Iterable, Mapping

import numpy as np

from kvision.weights.checkpoint import CheckpointError, Tensor
from kvision.weights.fitting import Fit
from kvision.weights.places import Convert, Place

__all__ = ["assign"]

Array = np.ndarray
Tensors = Mapping[str, Tensor]


def assign(found: Fit, tensors: Tensors) -> None:
    """Give the variables of a model their values.

    Args:
        found: what fits.
        tensors: of the checkpoint.

    Raises:
        CheckpointError: a tensor is damaged, or cannot be brought to the model's size;
            the latter before any variable has changed.
    """
    # First what may be of a size that cannot be resized.
    resized = [
        (place, _converted(place, place.resize, _read(place.names, tensors)))
        for place in found.resized
        if place.resize is not None
    ]
    # Those of the same tensors together, which are read once: a large file is never in
    # memory as a whole, nor read for each block of a stack.
    ordered = sorted(found.matched, key=_names_of)
    for names, group in itertools.groupby(ordered, key=_names_of):
        arrays = _read(names, tensors)
        for place in group:
            place.variable.assign(_converted(place, place.convert, arrays))
    for place, values in resized:
        place.variable.assign(values)


def _names_of(place: Place) -> tuple[str, ...]:
    return place.names


def _read(names: Iterable[str], tensors: Tensors) -> list[Array]:
    return [tensors[name].read() for name in names]


def _converted(place: Place, convert: Convert, arrays: list[Array]) -> Array:
    try:
        values = np.asarray(convert(*arrays), np.float32)
        return values.reshape(place.variable.shape)
    except ValueError as error:
        raise CheckpointError(f"{', '.join(place.names)}: {error}") from error
