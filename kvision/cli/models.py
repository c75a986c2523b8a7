"""`kvision models`: what can be built, what it costs, and the presets."""

import difflib
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

import kvision.models
from kvision.models.costs import Costs, costs_of
from kvision.models.presets import PRESETS, Preset, names_like
from kvision.models.published import PUBLISHED
from kvision.weights.fetching import HubFile, recorded

__all__ = ["run"]


def run(
    model: str | None, variant: str | None, image_size: tuple[int, int] | None
) -> dict[str, Any]:
    """List the published models and presets, or tell more of one.

    Args:
        model: function of `kvision.models`, such as "vit", or a preset; None lists all.
        variant: first argument of the function, such as "S/16": what that model costs.
        image_size: (height, width) of its input in pixels; None for the usual one.

    Returns:
        `models` and `presets`: a dict for each row of the tables.

    Raises:
        ValueError: for an unknown model or variant, or arguments that do not fit.
    """
    if image_size is not None and variant is None:
        raise ValueError("--image-size needs a model and a variant: vit S/16")
    if model in PRESETS:
        if variant is not None:
            raise ValueError(f"A preset has no variants. Received: {model} {variant}")
        return _show([], [_described(PRESETS[model])], is_one=True)
    if model is not None:
        _check_builder(model)
    if model is not None and variant is not None:
        _check_classifier(model)
        return _show([_counted(model, variant, image_size)], [])
    rows = [
        _row(one.builder, one.variant, one.image_size, one.costs, **one.arguments)
        for one in PUBLISHED
        if model in (None, one.builder)
    ]
    presets = [
        _described(one) for one in PRESETS.values() if model in (None, one.builder)
    ]
    return _show(rows, presets)


def _show(
    rows: list[dict[str, Any]], presets: list[dict[str, Any]], is_one: bool = False
) -> dict[str, Any]:
    console = Console()
    if rows:
        console.print(_table(rows))
    if is_one:
        console.print(_card(presets[0]))
    elif presets:
        console.print(_table_of_presets(presets))
    return {"models": rows, "presets": presets}


def _check_builder(name: str) -> None:
    detectors = {one.builder for one in PRESETS.values()}
    known = sorted({one.builder for one in PUBLISHED} | detectors | set(_OTHERS))
    if name in known:
        return
    near = [*difflib.get_close_matches(name, known, n=1), *names_like(name)]
    hint = f" Did you mean {' or '.join(map(repr, near[:3]))}?" if near else ""
    raise ValueError(f"No model or preset {name!r}. Models: {', '.join(known)}.{hint}")


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
    origin = preset.origin
    url = origin.url if isinstance(origin, HubFile) else origin
    revision = origin.revision if isinstance(origin, HubFile) else None
    return {
        **preset._asdict(),
        "origin": url,
        "revision": revision,
        "recorded": recorded(origin),
        "published": [metric._asdict() for metric in preset.published],
        "measured": [metric._asdict() for metric in preset.measured],
    }


def _table_of_presets(presets: list[dict[str, Any]]) -> Table:
    table = Table(
        title="presets, for kvision.create",
        caption="origin, licence, hash and preprocessing of one: kvision models PRESET",
    )
    table.add_column("preset", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("image", no_wrap=True)
    table.add_column("published", no_wrap=True)
    for preset in presets:
        figures = [_figure(one) for one in preset["published"]]
        table.add_row(
            preset["name"],
            f"{preset['parameters']:,}",
            "{}x{}".format(*preset["arguments"]["image_size"]),
            "\n".join(figures),
        )
    return table


def _figure(metric: dict[str, Any]) -> str:
    """Say a figure without its data, which is that of the preset."""
    name = metric["name"].removeprefix("ImageNet-1k ").removeprefix("COCO val2017 ")
    return f"{name} {metric['value']:.1f}"


def _card(preset: dict[str, Any]) -> Table:
    """Tell all there is to say of one preset."""
    table = Table(title=preset["name"], show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    known = preset["recorded"]
    first = "recorded at the first download"
    sha256 = f"begins with {preset['sha256']}" if preset["sha256"] else first
    revision = preset["revision"] or f"main, {first}"
    rows = {
        "in Python": f'kvision.create("{preset["name"]}")',
        "builder": f"kvision.models.{preset['builder']}",
        "arguments": _lines(preset["arguments"]),
        "preprocessing": _lines(preset["preprocessing"]),
        "classes": preset["classes"],
        "parameters": f"{preset['parameters']:,}",
        "licence": preset["licence"],
        "origin": preset["origin"],
        "revision": known.get("revision") or revision,
        "sha256": known.get("sha256") or sha256,
        "published": _figures(preset["published"]),
        "measured": _figures(preset["measured"]) or "not yet",
    }
    if preset["source"] == "torchvision":
        del rows["revision"]  # an address has none
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _lines(values: dict[str, Any]) -> str:
    return "\n".join(f"{name}={value!r}" for name, value in values.items())


def _figures(metrics: list[dict[str, Any]]) -> str:
    return "\n".join("{name} {value} ({source})".format(**one) for one in metrics)
