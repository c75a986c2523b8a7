"""`load`: a checkpoint of another project becomes the weights of a model."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from kvision.weights import (
    detectron2,
    dinov2,
    google,
    hugging_face,
    kvision,
    matterport,
    timm,
    torchvision,
)
from kvision.weights.assigning import assign
from kvision.weights.channels import with_channels
from kvision.weights.checkpoint import Checkpoint, CheckpointError, naming, shown
from kvision.weights.fitting import Fit, fit, some
from kvision.weights.places import Place, Shape
from kvision.weights.reading import read_checkpoint
from kvision.weights.report import Report

__all__ = ["load"]

# Of a name in a layout, the file's own name, which is what users are told.
Names = Mapping[str, str]

# As Transformers names the files of a large model: "model-00001-of-00002.safetensors".
_PART = re.compile(r"-\d+-of-\d+\.")

# At most one of them recognises a checkpoint.
_LAYOUTS: dict[str, ModuleType] = {
    "timm": timm,
    "dinov2": dinov2,
    "hugging_face": hugging_face,
    "google": google,
    "torchvision": torchvision,
    "detectron2": detectron2,
    "matterport": matterport,
    "kvision": kvision,
}


def load(
    model: Any,
    path: "str | Path",
    source: str = "auto",
    *,
    part: str | None = None,
    unused: Sequence[str] = (),
    adapt_channels: bool = False,
) -> Report:
    """Fill a model with weights that another project has published.

    Nothing is assigned before everything fits and every tensor has been read once: what
    does not fit or is damaged leaves the model as it was. Positions and patch kernels
    of another size are resampled by the rule of the source; a head of other classes is
    left as it is, and the report says so.

    Example:
        model = kvision.models.vit("B/16", num_classes=10)
        print(kvision.weights.load(model, "vit_base_patch16_224.safetensors"))

    Args:
        model: a built model of `kvision.models`.
        path: the checkpoint; its format is told from its content.
        source: whose names it has: "timm" (Meta's DeiT and DynamicViT too),
            "dinov2", "hugging_face", "google", "torchvision", "detectron2",
            "matterport" or "kvision"; "auto" finds out.
        part: of a file with several dicts of tensors, such as "teacher" or "model_ema",
            the key of the one to take; see `kvision.weights.read_checkpoint`.
        unused: how the names in the file begin of tensors that the model may leave out.
        adapt_channels: whether the first convolution may be brought to a model for
            images of other channels (`kvision.weights.channels`).

    Returns:
        What was matched, resized, left fresh and not used.

    Raises:
        CheckpointError: the file cannot be read, has none of the layouts, or tensors
            and variables do not correspond; a `ValueError`.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path, part)
    source = _source(source, checkpoint)
    layout = _LAYOUTS[source]
    places = _places(model, layout, checkpoint, adapt_channels)
    found = fit(places, _shapes(checkpoint))
    allowed = (unused,) if isinstance(unused, str) else tuple(unused)
    faults = {
        "of another shape": found.misfits,
        "of numbers that are no weights": _unfit(found, checkpoint),
        "missing in the file": found.missing,
        "in the file without a place in the model": _strange(found, layout, allowed),
        "in the model without a name in this layout": _homeless(model, places),
    }
    with naming(f"{path} ({source}) does not fit {model.name!r}"):
        _check(faults, _advice(source, checkpoint))
    assign(found, checkpoint)
    return Report(
        path,
        source,
        matched=_names(found.matched, found.resized),
        resized=_names(found.resized),
        fresh=tuple(place.variable.path for place in found.fresh),
        unused=(*found.left, *(n for n in _names(found.fresh) if n in checkpoint)),
        remarks=tuple(_remarks(found.left, getattr(layout, "LEFT_OUT", {}))),
    )


def _source(source: str, checkpoint: Checkpoint) -> str:
    """Find out whose names a checkpoint has, if that is not said."""
    if source != "auto":
        if source not in _LAYOUTS:
            raise ValueError(
                f"source must be one of 'auto', {', '.join(map(repr, _LAYOUTS))}. "
                f"Received: {source!r}"
            )
        return source
    found = _recognised(checkpoint)
    if found is None:
        raise CheckpointError(
            f"{checkpoint.path} has the layout of none of {', '.join(_LAYOUTS)}. Its "
            f"tensors are called {some(list(checkpoint))}{_of_keras(checkpoint)}"
        )
    return found


def _of_keras(names: Iterable[str]) -> str:
    if not any("/vars/" in name for name in names):
        return ""
    return ". Keras wrote it: model.load_weights of the same model reads it"


def _recognised(checkpoint: Checkpoint) -> str | None:
    names = set(checkpoint)
    sources = [name for name in _LAYOUTS if _LAYOUTS[name].recognises(names)]
    return next(iter(sources), None)


def _places(
    model: Any, layout: ModuleType, checkpoint: Checkpoint, adapt_channels: bool
) -> list[Place]:
    """List where tensors go, by the names that they have in the file."""
    with naming(checkpoint.path):
        own = _own_names(checkpoint, layout)
    tensors = _shapes(checkpoint)
    shapes = {name: tensors[own_name] for name, own_name in own.items()}
    places = list(layout.places(model, shapes))
    if adapt_channels:
        places = [with_channels(place, shapes) for place in places]
    return [
        replace(place, names=tuple(own.get(name, name) for name in place.names))
        for place in places
    ]


def _own_names(names: Iterable[str], layout: ModuleType) -> Names:
    own: dict[str, str] = {}
    for name in names:
        renamed = layout.renamed(name)
        if renamed in own:
            both = some([own[renamed], name])
            raise CheckpointError(f"two names of one tensor are in the file: {both}")
        own[renamed] = name
    return own


def _shapes(checkpoint: Checkpoint) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in checkpoint.items()}


def _strange(found: Fit, layout: ModuleType, allowed: tuple[str, ...]) -> list[str]:
    """Return the tensors that nobody asks for and that may not be left out."""
    return [
        name
        for name in found.left
        if not (layout.is_spare(layout.renamed(name)) or name.startswith(allowed))
    ]


def _unfit(found: Fit, checkpoint: Checkpoint) -> list[str]:
    """Return the tensors of whole or complex numbers, such as quantised ones."""
    places = [*found.matched, *found.resized]
    dtypes = {name: checkpoint[name].dtype for place in places for name in place.names}
    return [
        f"{shown(n)} ({dtype})" for n, dtype in dtypes.items() if dtype.kind in "biuc"
    ]


def _homeless(model: Any, places: list[Place]) -> list[str]:
    """Return the variables that the layout has no place for."""
    placed = {id(place.variable) for place in places}
    return [weight.path for weight in model.weights if id(weight) not in placed]


def _advice(source: str, checkpoint: Checkpoint) -> str:
    own = _recognised(checkpoint)
    if own not in (source, None):
        return f"The names in the file are those of source={own!r}"
    if _PART.search(checkpoint.path.name):
        return "It is one of several parts: pass the index of all, *.index.json"
    return (
        "Build the model with the checkpoint's variant and arguments, or name in "
        "unused= what it may leave out"
    )


def _check(faults: Mapping[str, list[str]], advice: str) -> None:
    """Refuse what does not correspond, with the first of each kind."""
    said = [f"{len(of)} {kind}: {some(of)}" for kind, of in faults.items() if of]
    if said:
        raise CheckpointError(f"{'; '.join(said)}. Nothing was loaded. {advice}")


def _remarks(left: Sequence[str], whose: Mapping[str, str]) -> Iterator[str]:
    """Explain what was left out without having been named, by how its names begin."""
    for beginning, owner in whose.items():
        names = [name for name in left if name.startswith(beginning)]
        if names:
            yield f"unused: {len(names)} of {owner}: {some(names)}"


def _names(places: Iterable[Place], but: Iterable[Place] = ()) -> tuple[str, ...]:
    """Return the names of the tensors, each once."""
    others = {name for place in but for name in place.names}
    names = (name for place in places for name in place.names)
    return tuple(dict.fromkeys(name for name in names if name not in others))
