"""From tensors of a checkpoint to variables of a model, one place at a time."""

import itertools
from collections.abc import Iterable

import numpy as np

from kvision.weights.checkpoint import Checkpoint, CheckpointError
from kvision.weights.fitting import Fit
from kvision.weights.places import Convert, Place

__all__ = ["assign"]

Array = np.ndarray


def assign(found: Fit, checkpoint: Checkpoint) -> None:
    """Give the variables of a model their values.

    Args:
        found: what fits.
        checkpoint: the tensors.

    Raises:
        CheckpointError: a tensor is damaged, or cannot be brought to the model's size.
            No variable has changed then.
    """
    # First what may be of a size that cannot be resized, and whatever damage shows only
    # when values are read: reading twice takes less than keeping the old values.
    resized = [
        (place, _resized(place, place.resize, checkpoint))
        for place in found.resized
        if place.resize is not None
    ]
    for name in dict.fromkeys(name for place in found.matched for name in place.names):
        checkpoint[name].read()
    # Those of the same tensors together, which are read once: a large file is never in
    # memory as a whole, nor read for each block of a stack.
    ordered = sorted(found.matched, key=_names_of)
    for names, group in itertools.groupby(ordered, key=_names_of):
        arrays = _read(names, checkpoint)
        for place in group:
            place.variable.assign(_converted(place, place.convert, arrays))
    for place, values in resized:
        place.variable.assign(values)


def _names_of(place: Place) -> tuple[str, ...]:
    return place.names


def _read(names: Iterable[str], checkpoint: Checkpoint) -> list[Array]:
    return [checkpoint[name].read() for name in names]


def _resized(place: Place, resize: Convert, checkpoint: Checkpoint) -> Array:
    arrays = _read(place.names, checkpoint)
    try:
        return _converted(place, resize, arrays)
    except ValueError as error:
        names = ", ".join(place.names)
        raise CheckpointError(f"{checkpoint.path}: {names}: {error}") from error


def _converted(place: Place, convert: Convert, arrays: list[Array]) -> Array:
    values = np.asarray(convert(*arrays), np.float32)
    return values.reshape(place.variable.shape)
