"""`kvision models`: what can be built, what it costs, and the presets."""

import difflib
from typing import Any

from rich.console import Console
from rich.table import Table

import kvision.models
from kvision.models.costs import Costs, costs_of
from kvision.models.presets import PRESETS, Preset
from kvision.models.published import PUBLISHED

__all__ = ["run"]


def run(
    builder: str | None, variant: str | None, image_size: tuple[int, int] | None
) -> dict[str, Any]:
    """List the published models and presets, or count what one model costs.

    Args:
        builder: function of `kvision.models`, such as "vit"; None lists all.
        variant: its first argument, such as "S/16"; None lists the published ones.
        image_size: (height, width) of the input in pixels; None for the usual one.

    Returns:
        `models` and `presets`: a dict for each row of the tables.

    Raises:
        ValueError: for an unknown builder or variant.
    """
    if builder is not None:
        _check_builder(builder)
    if builder is not None and variant is not None:
        _check_classifier(builder)
        rows = [_counted(builder, variant, image_size)]
        presets: list[dict[str, Any]] = []
    else:
        rows = [
            _row(one.builder, one.variant, one.image_size, one.costs, **one.arguments)
            for one in PUBLISHED
            if builder in (None, one.builder)
        ]
        presets = [
            _described(one)
            for one in PRESETS.values()
            if builder in (None, one.builder)
        ]
    if rows:
        Console().print(_table(rows))
    if presets:
        Console().print(_table_of_presets(presets))
    return {"models": rows, "presets": presets}


def _check_builder(name: str) -> None:
    detectors = {one.builder for one in PRESETS.values()}
    known = sorted({one.builder for one in PUBLISHED} | detectors | set(_OTHERS))
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"No model {name!r}. There are: {', '.join(known)}.{hint}")


def _check_classifier(name: str) -> None:
    classifiers = {one.builder for one in PUBLISHED} | set(_OTHERS)
    if name not in classifiers:
        raise ValueError(
            f"Parameters and multiply-adds are counted of classifiers. Received: {name}"
        )


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


def _described(preset: Preset) -> dict[str, Any]:
    """Return a preset as json can say it."""
    origin = (
        preset.origin if isinstance(preset.origin, str) else preset.origin._asdict()
    )
    return {
        **preset._asdict(),
        "origin": origin,
        "metrics": [metric._asdict() for metric in preset.metrics],
    }


def _table_of_presets(presets: list[dict[str, Any]]) -> Table:
    table = Table(title="presets, for kvision.create")
    table.add_column("preset", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    for column in ("published", "licence"):
        table.add_column(column)
    for preset in presets:
        figures = [f"{one['name']} {one['value']:.1f}" for one in preset["metrics"]]
        table.add_row(
            preset["name"],
            f"{preset['parameters']:,}",
            ", ".join(figures),
            preset["licence"],
        )
    return table
