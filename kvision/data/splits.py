"""A part of labelled images set aside for validation, the same every time."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

__all__ = ["Subset", "check_split", "split_labelled"]

Subset = Literal["training", "validation"]


def check_split(validation_split: float | None, subset: str | None) -> None:
    """Refuse arguments that do not fit each other, with a `ValueError`."""
    if (validation_split is None) != (subset is None):
        raise ValueError(
            "validation_split and subset go together. Received: "
            f"validation_split={validation_split}, subset={subset!r}"
        )
    if validation_split is not None and not 0.0 < validation_split < 1.0:
        raise ValueError(
            f"validation_split must lie between 0 and 1. Received: {validation_split}"
        )
    if subset not in (None, "training", "validation"):
        raise ValueError(
            f'subset must be "training" or "validation". Received: {subset!r}'
        )


def split_labelled(
    names: Sequence[str],
    labels: np.ndarray,
    validation_split: float,
    split_seed: int = 0,
) -> np.ndarray:
    """Choose images for validation: the same part of every class.

    Which images these are depends on their names and `split_seed` only, so that adding
    images moves few of the others.

    Args:
        names: of the images, all different.
        labels: (N,) int array.
        validation_split: part of each class for validation, between 0 and 1. A class
            of two or more images gives at least one, and keeps at least one.
        split_seed: another one gives another split.

    Returns:
        (N,) bool array: which images are for validation.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label).tolist()
        count = max(1, round(len(members) * validation_split))
        count = min(count, len(members) - 1)
        ranked = sorted(members, key=lambda index: _rank(names[index], split_seed))
        chosen[ranked[:count]] = True
    return chosen


def _rank(name: str, split_seed: int) -> bytes:
    return hashlib.blake2b(f"{split_seed}/{name}".encode()).digest()
