"""`create`: published models with their weights, by name."""

import difflib
import logging
from pathlib import Path
from typing import Any

import keras

from kvision.models.classifier import check_image_size
from kvision.models.preset_table import CLASS_NAMES, PRESETS, Metric, Preset
from kvision.weights.fetching import FetchError, fetch
from kvision.weights.loading import load

__all__ = ["PRESETS", "Metric", "Preset", "create", "names_like", "preset_of"]

# What a detector learns on: of random weights no part should stay as it is.
_FOR_FINE_TUNING = ("frozen_stages", "freeze_batch_norm")
_MOST_NAMES = 6

_log = logging.getLogger("kvision.models")


def create(
    name: str, weights: "bool | str | Path | None" = True, **overrides: Any
) -> keras.Model:
    """Build a published model with its weights, which are downloaded the first time.

    Example:
        model = kvision.create("vit_b16_augreg_imagenet1k", num_classes=10)

    Args:
        name: one of `kvision.models.presets.PRESETS`; `kvision models` lists them.
        weights: False or None for random ones, or a file of these weights in their
            layout.
        **overrides: arguments of the builder in place of the preset's. A head of
            another number of classes (`num_classes=`, `class_names=`) keeps its first
            values, and a warning of the logger "kvision.models" says so. A thousand
            `class_names` are other names for ImageNet's classes; of COCO 80 other
            names are other classes. Positions are brought to another `image_size`.

    Returns:
        The model, which prepares images as the weights need them and knows the names of
        its classes: ImageNet's 1000, or COCO's 80.

    Raises:
        ValueError: there is no such preset, its weights cannot be had or do not fit, or
            an argument is out of range.
        TypeError: for an unknown argument.
        ImportError: the weights are on the hub, and huggingface_hub is not installed.
    """
    from kvision import models

    preset = preset_of(name)
    arguments = _arguments(preset, overrides)
    path = _path(preset, weights)  # before a model takes memory: it may fail
    if path is None:
        for argument in set(_FOR_FINE_TUNING) - set(overrides):
            arguments.pop(argument, None)
    model = getattr(models, preset.builder)(**arguments)
    if path is not None:
        _load(model, path, preset, arguments)
    return model


def preset_of(name: str) -> Preset:
    """Find a preset.

    Args:
        name: its name.

    Returns:
        The preset.

    Raises:
        ValueError: there is none; the message names those that may be meant, also by
            the names that timm and torchvision have for them.
    """
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is not None:
        return preset
    near = names_like(str(name))
    shown = ", ".join(map(repr, near[:_MOST_NAMES])) + ", ..." * (
        len(near) > _MOST_NAMES
    )
    hint = f" Did you mean {shown}?" if near else ""
    raise ValueError(f"No preset {name!r}.{hint} `kvision models` lists them")


def names_like(name: str) -> list[str]:
    """List the presets that a name may mean.

    Args:
        name: part of a preset's name or of its publisher's for it, or one misspelt.

    Returns:
        Names of presets.
    """
    plain = name.lower().removeprefix("timm/").replace("-", "_")
    holding = [
        preset.name
        for preset in PRESETS.values()
        if plain and (plain in preset.name or plain in str(preset.origin))
    ]
    return holding or difflib.get_close_matches(name, PRESETS, n=3)


def _arguments(preset: Preset, overrides: dict[str, Any]) -> dict[str, Any]:
    """Put together what the builder takes; names of classes only for their own head."""
    names = CLASS_NAMES[preset.classes]
    if preset.classes == "COCO" and "num_classes" in overrides:
        raise ValueError(
            f"{preset.name} takes class_names=[...], not num_classes. Received: "
            f"num_classes={overrides['num_classes']!r}"
        )
    if "image_size" in overrides:  # before anything is downloaded
        check_image_size(overrides["image_size"])
    if overrides.get("num_classes", len(names)) == len(names):
        overrides = {"class_names": names, **overrides}
    return {**preset.arguments, **preset.preprocessing, **overrides}


def _path(preset: Preset, weights: Any) -> Path | None:
    """Return the file of the weights, downloaded if need be; None for random ones."""
    if weights is None or weights is False:
        return None
    if weights is not True:
        path = Path(weights) if isinstance(weights, str | Path) else None
        if path is None or not path.is_file():
            raise ValueError(
                "weights must be True for the published ones, False for random ones, "
                f"or a file that exists. Received: {weights!r}"
            )
        return path
    try:
        return fetch(preset.origin, preset.sha256)
    except FetchError as error:
        raise FetchError(
            f"No weights of {preset.name}: {error}. What was downloaded otherwise "
            "loads with weights='FILE'; weights=False begins with random ones"
        ) from error


def _load(
    model: keras.Model, path: Path, preset: Preset, arguments: dict[str, Any]
) -> None:
    headless = arguments.get("num_classes") == 0 or arguments.get("features")
    unused = ["head.", "head_dist."] if headless else []
    report = load(model, path, preset.source, unused=unused)
    if report.fresh:
        _log.warning(
            "%s: all weights taken but those of other classes, which begin anew: %s",
            preset.name,
            ", ".join(report.fresh),
        )
