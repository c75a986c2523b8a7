"""`kvision models`: what can be built, and what it costs."""

import difflib
from typing import Any

from rich.console import Console
from rich.table import Table

import kvision.models
from kvision.models.costs import Costs, costs_of
from kvision.models.published import PUBLISHED

__all__ = ["run"]


def run(
    builder: str | None, variant: str | None, image_size: tuple[int, int] | None
) -> dict[str, Any]:
    """List the published classifiers, or count what one model costs.

    Args:
        builder: function of `kvision.models`, such as "vit"; None lists all.
        variant: its first argument, such as "S/16"; None lists the published ones.
        image_size: (height, width) of the input in pixels; None for the usual one.

    Returns:
        `models`: a dict for each row of the table.

    Raises:
        ValueError: for an unknown builder or variant.
    """
    if builder is not None:
        _check_builder(builder)
    if builder is not None and variant is not None:
        rows = [_counted(builder, variant, image_size)]
    else:
        rows = [
            _row(one.builder, one.variant, one.image_size, one.costs, **one.arguments)
            for one in PUBLISHED
            if builder in (None, one.builder)
        ]
    Console().print(_table(rows))
    return {"models": rows}


def _check_builder(name: str) -> None:
    known = sorted({one.builder for one in PUBLISHED} | set(_OTHERS))
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"No model {name!r}. There are: {', '.join(known)}.{hint}")


# Classifiers without a published size of their own.
_OTHERS = ("conv_vit", "dynamic_vit", "mixed_resolution_vit")


def _counted(
    builder: str, variant: str, image_size: tuple[int, int] | None
) -> dict[str, Any]:
    size = image_size or (224, 224)
    build = getattr(kvision.models, builder)
    costs = costs_of(lambda: build(variant, image_size=size, num_classes=1000))
    return _row(builder, variant, size, costs)


def _row(
    builder: str, variant: str, image_size: tuple[int, int], costs: Costs, **more: bool
) -> dict[str, Any]:
    return {
        "builder": builder,
        "variant": variant,
        "arguments": more,
        "image_size": image_size,
        "parameters": costs.parameters,
        "multiply_adds": costs.multiply_adds,
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="classifiers, 1000 classes")
    for column in ("kvision.models", "variant", "image"):
        table.add_column(column)
    for column in ("parameters", "G multiply-adds"):
        table.add_column(column, justify="right")
    for row in rows:
        height, width = row["image_size"]
        table.add_row(
            row["builder"],
            " ".join([row["variant"], *row["arguments"]]),
            f"{height}x{width}",
            f"{row['parameters']:,}",
            f"{row['multiply_adds'] / 1e9:.2f}",
        )
    return table
