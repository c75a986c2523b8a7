"""`load`: a checkpoint of another project becomes the weights of a model."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kvision.weights import detectron2, google, hugging_face, kvision, timm, torchvision
from kvision.weights.channels import with_channels
from kvision.weights.checkpoint import CheckpointError, Tensor, naming
from kvision.weights.fitting import Fit, fit, some
from kvision.weights.places import Convert, Place
from kvision.weights.reading import read_checkpoint
from kvision.weights.report import Report

__all__ = ["load"]

Array = np.ndarray
Tensors = Mapping[str, Tensor]

# The first that recognises a checkpoint is taken.
_LAYOUTS: dict[str, ModuleType] = {
    "timm": timm,
    "hugging_face": hugging_face,
    "google": google,
    "kvision": kvision,
    "torchvision": torchvision,
    "detectron2": detectron2,
}


def load(
    model: Any,
    path: "str | Path",
    source: str = "auto",
    *,
    unused: Sequence[str] = (),
    adapt_channels: bool = False,
) -> Report:
    """Fill a model with weights that another project has published.

    Nothing is assigned before everything fits. Positions and patch kernels of another
    size are resampled by the rule of the source; a head of other classes is left as it
    is, and the report says so.

    Example:
        model = kvision.models.vit("B/16", num_classes=10)
        print(kvision.weights.load(model, "vit_base_patch16_224.safetensors"))

    Args:
        model: a built model of `kvision.models`.
        path: the checkpoint; its format is told from its content.
        source: whose names it has, such as "timm" or "hugging_face"; "auto" finds out.
        unused: how the names begin of tensors that the model may leave out.
        adapt_channels: whether the first convolution may be brought to a model for
            images of other channels (`kvision.weights.channels`).

    Returns:
        What was matched, resized, left fresh and not used.

    Raises:
        CheckpointError: the file cannot be read, has none of the layouts, or tensors
            and variables do not correspond; a `ValueError`.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    source, layout = _layout(source, checkpoint, path)
    with naming(path):
        tensors = _renamed(checkpoint, layout)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    places = list(layout.places(model, shapes))
    if adapt_channels:
        places = [with_channels(place, shapes) for place in places]
    found = fit(places, shapes)
    allowed = tuple(unused)
    strange = [
        name
        for name in found.left
        if not (layout.is_spare(name) or name.startswith(allowed))
    ]
    with naming(f"{path} ({source}) does not fit {model.name!r}"):
        _check(found, strange, _homeless(model, places))
    with naming(path):
        _assign(found, tensors)
    return Report(
        path,
        source,
        matched=_names(found.matched, found.resized),
        resized=_names(found.resized),
        fresh=tuple(place.variable.path for place in found.fresh),
        unused=(*found.left, *(n for n in _names(found.fresh) if n in shapes)),
    )


def _layout(source: str, names: Iterable[str], path: Path) -> tuple[str, ModuleType]:
    if source != "auto":
        if source not in _LAYOUTS:
            raise ValueError(
                f"source must be one of 'auto', {', '.join(map(repr, _LAYOUTS))}. "
                f"Received: {source!r}"
            )
        return source, _LAYOUTS[source]
    for name, layout in _LAYOUTS.items():
        if layout.recognises(set(names)):
            return name, layout
    raise CheckpointError(
        f"{path} has the layout of none of {', '.join(_LAYOUTS)}. Its tensors are "
        f"called {some(list(names))}"
    )


def _renamed(checkpoint: Tensors, layout: ModuleType) -> Tensors:
    tensors: dict[str, Tensor] = {}
    for name, tensor in checkpoint.items():
        renamed = layout.renamed(name)
        if renamed in tensors:
            raise CheckpointError(f"two of its tensors are {renamed!r}")
        tensors[renamed] = tensor
    return tensors


def _homeless(model: Any, places: list[Place]) -> list[str]:
    """Return the variables that the layout has no place for."""
    placed = {id(place.variable) for place in places}
    return [weight.path for weight in model.weights if id(weight) not in placed]


def _check(found: Fit, strange: list[str], homeless: list[str]) -> None:
    """Refuse what does not correspond, with the first of each kind."""
    faults = {
        "of another shape": found.misfits,
        "missing in the file": found.missing,
        "in the file without a place in the model": strange,
        "in the model without a name in this layout": homeless,
    }
    said = [f"{len(of)} {kind}: {some(of)}" for kind, of in faults.items() if of]
    if said:
        raise CheckpointError(
            f"{'; '.join(said)}. Nothing was loaded. Build the model with the "
            "checkpoint's variant and arguments, or name in unused= what it may leave "
            "out"
        )


def _assign(found: Fit, tensors: Tensors) -> None:
    # First what may be of a size that cannot be resized.
    resized = [
        (place, _converted(place, place.resize, _read(place.names, tensors)))
        for place in found.resized
        if place.resize is not None
    ]
    # Those of the same tensors together, which are read once: a large file is never in
    # memory as a whole, nor read for each block of a stack.
    ordered = sorted(found.matched, key=_names_of)
    for names, group in itertools.groupby(ordered, key=_names_of):
        arrays = _read(names, tensors)
        for place in group:
            place.variable.assign(_converted(place, place.convert, arrays))
    for place, values in resized:
        place.variable.assign(values)


def _names_of(place: Place) -> tuple[str, ...]:
    return place.names


def _read(names: Iterable[str], tensors: Tensors) -> list[Array]:
    return [tensors[name].read() for name in names]


def _converted(place: Place, convert: Convert, arrays: list[Array]) -> Array:
    try:
        values = np.asarray(convert(*arrays), np.float32)
        return values.reshape(place.variable.shape)
    except ValueError as error:
        raise CheckpointError(f"{', '.join(place.names)}: {error}") from error


def _names(places: Iterable[Place], but: Iterable[Place] = ()) -> tuple[str, ...]:
    """Return the names of the tensors, each once."""
    others = {name for place in but for name in place.names}
    names = (name for place in places for name in place.names)
    return tuple(dict.fromkeys(name for name in names if name not in others))
