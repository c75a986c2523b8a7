"""Settings from YAML and KEY=VALUE: checked types and ranges, unknown names refused.

A recipe is a frozen dataclass. Its annotations say what a value may be, `setting` adds
a range; this file turns text into such values, or says what is wrong with it.
"""

import dataclasses
import difflib
import operator
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

__all__ = ["convert_fields", "read_assignments", "read_yaml", "setting", "unknown"]

_NOTHING = ("none", "null", "")
_LIMITS = {
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "most": ("at most", operator.le),
    "below": ("below", operator.lt),
}


def setting(
    default: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """Make a field of a dataclass with a default and a range.

    Args:
        default: the default.
        least: the smallest value.
        above: all values are larger.
        most: the largest value.
        below: all values are smaller.

    Returns:
        The field.
    """
    limits = {"least": least, "above": above, "most": most, "below": below}
    metadata = {name: limit for name, limit in limits.items() if limit is not None}
    return dataclasses.field(default=default, metadata=metadata)


def convert_fields(recipe: Any) -> None:
    """Bring every field of a frozen dataclass to its annotated type, in place.

    Args:
        recipe: the object, from its `__post_init__`.

    Raises:
        ValueError: a value is of another type or out of range.
    """
    hints = typing.get_type_hints(type(recipe))
    for field in dataclasses.fields(recipe):
        value = _converted(getattr(recipe, field.name), hints[field.name], field.name)
        _check_range(field.name, value, field.metadata)
        object.__setattr__(recipe, field.name, value)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping of settings; nothing but plain values is made from the file.

    Args:
        path: the YAML file.

    Returns:
        The settings.

    Raises:
        ValueError: the file is no YAML, or no mapping; the message says where.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML that could be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold lines such as `epochs: 10`. Received: "
            f"{type(content).__name__}"
        )
    return {str(key): value for key, value in content.items()}


def read_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Read KEY=VALUE, the value as in YAML.

    Args:
        texts: such as "epochs=10" or "augment=[HorizontalFlip]".

    Returns:
        The settings.

    Raises:
        ValueError: a text has no "=" or its value is no YAML.
    """
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"Expected KEY=VALUE, such as epochs=10. Received: {text}")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{text}: the value cannot be read: {error}") from error
    return settings


def unknown(name: str, known: Iterable[str], what: str = "setting") -> ValueError:
    """Return the error for a name that does not exist.

    Args:
        name: what came.
        known: what there is.
        what: what it should name.

    Returns:
        The error, with the most similar names.
    """
    known = sorted(known)
    similar = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    # "lr" or "batch": too short for difflib, but a part or the first letters.
    similar = (
        similar
        or [
            other
            for other in known
            if name in other or name == "".join(word[0] for word in other.split("_"))
        ][:3]
    )
    if similar:
        return ValueError(f"No {what} {name!r}. Did you mean {' or '.join(similar)}?")
    return ValueError(f"No {what} {name!r}. There are: {', '.join(known)}")


def _converted(value: Any, hint: Any, name: str) -> Any:
    options = _options(hint)
    if types.NoneType in options and (
        value is None or (isinstance(value, str) and value.lower() in _NOTHING)
    ):
        return None
    for option in options:
        done, result = _as(value, option)
        if done:
            return result
    expected = " or ".join(_describe(option) for option in options)
    raise ValueError(f"{name} must be {expected}. Received: {name}={value!r}")


def _options(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if is_union else (hint,)


def _as(value: Any, kind: Any) -> tuple[bool, Any]:
    """Return whether `value` can be taken as `kind`, and the result."""
    origin = typing.get_origin(kind) or kind
    if origin is typing.Literal:
        return value in typing.get_args(kind), value
    if origin is tuple:
        return _as_tuple(value, kind)
    if origin is float:
        return _as_float(value)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if origin is str:
        return isinstance(value, str | Path), str(value)
    if origin is list:
        return isinstance(value, list | tuple), _listed(value)
    return isinstance(value, origin), value


def _as_float(value: Any) -> tuple[bool, Any]:
    if isinstance(value, bool):
        return False, value
    try:
        return True, float(value)  # also "1e-4", which YAML takes for text
    except (TypeError, ValueError):
        return False, value


def _as_tuple(value: Any, kind: Any) -> tuple[bool, Any]:
    """Read a tuple; a size may come as 256 or "256x320"."""
    kinds = typing.get_args(kind)
    if kinds == (int, int):
        if isinstance(value, str):
            parts = value.lower().split("x")
            value = [int(part) if part.isdecimal() else part for part in parts]
        if isinstance(value, int) or (isinstance(value, list) and len(value) == 1):
            value = [value, value] if isinstance(value, int) else [*value, *value]
    if not isinstance(value, list | tuple):
        return False, value
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        return False, value
    items = [_as(item, item_kind) for item, item_kind in zip(value, kinds, strict=True)]
    return all(done for done, _ in items), tuple(item for _, item in items)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(kind))
    if kind == tuple[int, int]:
        return "(height, width)"
    names = {
        types.NoneType: "none",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
    }
    origin = typing.get_origin(kind) or kind
    return names.get(origin, "numbers" if origin is tuple else f"a {origin.__name__}")


def _check_range(name: str, value: Any, limits: Any) -> None:
    values = value if isinstance(value, tuple) else (value,)
    numbers = [n for n in values if isinstance(n, int | float)]
    for number in numbers:
        if not all(_LIMITS[key][1](number, limit) for key, limit in limits.items()):
            texts = [f"{_LIMITS[key][0]} {limit}" for key, limit in limits.items()]
            raise ValueError(
                f"{name} must be {' and '.join(texts)}. Received: {name}={value!r}"
            )
