"""`kvision convert`: weights of another project as a model or weights of ours."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras

import kvision.models
from kvision.models.presets import PRESETS, create
from kvision.train.settings import read_assignments, unknown
from kvision.weights import load, save
from kvision.weights.replacing import replacing

__all__ = ["run"]


def run(
    checkpoint: Path,
    model: str,
    variant: str | None,
    image_size: tuple[int, int] | None,
    settings: Sequence[str],
    source: str,
    part: str | None,
    unused: Sequence[str],
    adapt_channels: bool,
    output: Path,
) -> dict[str, Any]:
    """Build a model, load the checkpoint, write the model or its weights.

    Args:
        checkpoint: the file of the other project.
        model: function of `kvision.models` that builds the model, or name of a preset.
        variant: its first argument, such as "B/16"; None for its default.
        image_size: (height, width) of the input in pixels; None for the default.
        settings: other arguments as KEY=VALUE.
        source: see `kvision.weights.load`.
        part: see `kvision.weights.load`.
        unused: see `kvision.weights.load`.
        adapt_channels: see `kvision.weights.load`.
        output: `.keras` file for the model, `.safetensors` for its weights alone.

    Returns:
        The file, and what became of the tensors.

    Raises:
        ValueError: there is no such model, variant or argument, or it does not fit the
            checkpoint.
    """
    if output.suffix not in (".keras", ".safetensors"):
        raise ValueError(
            f"--output must end in .keras or .safetensors. Received: {output}"
        )
    arguments = read_assignments(settings)
    if variant is not None:
        arguments["variant"] = variant
    if image_size is not None:
        arguments["image_size"] = image_size
    built = _build(model, arguments)
    report = load(
        built,
        checkpoint,
        source,
        part=part,
        unused=unused,
        adapt_channels=adapt_channels,
    )
    print(report)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".keras":
        with replacing(output) as unfinished:
            built.save(unfinished)
    else:
        save(built, output)
    print(f"{output.stat().st_size / 1e6:.1f} MB: {output}")
    return {
        "file": output,
        "source": report.source,
        "matched": report.matched,
        "resized": report.resized,
        "fresh": report.fresh,
        "unused": report.unused,
    }


def _build(name: str, arguments: dict[str, Any]) -> keras.Model:
    presets = {preset: partial(create, preset, weights=None) for preset in PRESETS}
    builders = presets | _builders()
    if name not in builders:
        raise unknown(name, builders, "model")
    try:
        return builders[name](**arguments)
    except TypeError as error:  # an argument that it does not have, or needs
        raise ValueError(
            f"{error}. Arguments are given as KEY=VALUE, such as class_names=[cat,dog]"
        ) from error


def _builders() -> dict[str, Callable[..., keras.Model]]:
    """Return the functions that build a model from nothing."""
    functions = {name: getattr(kvision.models, name) for name in kvision.models.__all__}
    return {
        name: function
        for name, function in functions.items()
        if inspect.isfunction(function)
        and "model" not in inspect.signature(function).parameters
    }
