"""What becomes of each place: whether a checkpoint and a model correspond."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kvision.weights.checkpoint import shown
from kvision.weights.places import Place, Shape

__all__ = ["Fit", "fit", "some"]

_SHOWN = 3


@dataclass(frozen=True)
class Fit:
    """Places and tensors by what becomes of them.

    Attributes:
        matched: places whose tensors are taken as they are.
        resized: places whose tensors are brought to the model's size.
        fresh: places of a head whose variables keep their first values.
        misfits: what is of another shape and cannot be resized, for people.
        missing: names of tensors that the checkpoint lacks.
        left: names of tensors that no place asks for.
    """

    matched: list[Place] = field(default_factory=list)
    resized: list[Place] = field(default_factory=list)
    fresh: list[Place] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def fit(places: Sequence[Place], shapes: Mapping[str, Shape]) -> Fit:
    """Sort places by what becomes of them.

    Args:
        places: those of a model.
        shapes: of the tensors of a checkpoint.

    Returns:
        All places, and the tensors that none asks for.
    """
    asked = {name for place in places for name in place.names}
    found = Fit(left=[name for name in shapes if name not in asked])
    for place in places:
        _sort(place, shapes, found)
    return found


def _sort(place: Place, shapes: Mapping[str, Shape], found: Fit) -> None:
    absent = [name for name in place.names if name not in shapes]
    others = [
        (name, shape)
        for name, shape in zip(place.names, place.shapes, strict=True)
        if name not in absent and shapes[name] != shape
    ]
    if not absent and not others:
        found.matched.append(place)
    elif place.is_head:
        found.fresh.append(place)
    elif absent:
        found.missing.extend(name for name in absent if name not in found.missing)
    elif place.resize is not None:
        found.resized.append(place)
    else:
        # Blocks of a stack ask for the same tensors.
        texts = [f"{shown(name)} {shapes[name]} instead of {s}" for name, s in others]
        found.misfits.extend(text for text in texts if text not in found.misfits)


def some(names: Sequence[str]) -> str:
    """Name the first few.

    Args:
        names: any number.

    Returns:
        Some of them, separated by commas.
    """
    return ", ".join(map(shown, names[:_SHOWN])) + (", ..." if names[_SHOWN:] else "")
