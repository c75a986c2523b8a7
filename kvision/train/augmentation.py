"""Transforms of `kvision.data` as plain values, which a recipe can hold."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kvision.train.settings import unknown

__all__ = ["as_plain", "make_transform"]


def as_plain(item: Any) -> Any:
    """Write a transform of `kvision.data` as {name: {argument: value}}.

    Args:
        item: a transform; what is none is returned as it is.

    Returns:
        Plain values.

    Raises:
        ValueError: it is a function of one's own.
    """
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {type(item).__name__: dataclasses.asdict(item)}
    if callable(item):
        raise ValueError(
            "A recipe names the transforms of kvision.data.transforms, so that it can "
            f"be written down. Received: {item!r}. For one of your own, train with "
            "model.fit"
        )
    return item


def make_transform(item: Any, known: Mapping[str, Any]) -> Any:
    """Make a transform of its name, or of {name: {argument: value}}.

    Args:
        item: the plain values.
        known: name -> class.

    Returns:
        The transform.

    Raises:
        ValueError: for an unknown name or argument.
    """
    pair = {item: {}} if isinstance(item, str) else item
    if not isinstance(pair, dict) or len(pair) != 1:
        raise ValueError(
            "augment must be a list of names or of {name: {argument: value}}. "
            f"Received: {item!r}"
        )
    ((name, arguments),) = pair.items()
    if name not in known:
        raise unknown(name, known, "transform")
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in (arguments or {}).items()
    }
    try:
        return known[name](**values)
    except TypeError as error:
        raise ValueError(f"augment: {name}: {error}") from error
