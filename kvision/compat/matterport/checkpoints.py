"""Weight files of a `MaskRCNN`: matterport's, our own, and where the last one is.

Our own are HDF5 too, so that scripts find the names of files they know; in them is
what `kvision.weights.save` would write.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import keras
import numpy as np

from kvision.compat.matterport.imagenet import in_our_terms, is_imagenet
from kvision.compat.matterport.layer_names import WEIGHTLESS, layer_names
from kvision.weights import kvision, matterport
from kvision.weights.assigning import assign
from kvision.weights.checkpoint import (
    Checkpoint,
    CheckpointError,
    Contents,
    naming,
)
from kvision.weights.fitting import Fit, some
from kvision.weights.places import Place
from kvision.weights.reading import read_checkpoint
from kvision.weights.replacing import replacing
from kvision.weights.report import Report

__all__ = ["WriteCheckpoints", "find_last", "load", "position_of", "write"]

_FOLDER = re.compile(r".+\d{8}T\d{4}")
_FILE = re.compile(r"mask_rcnn_.+_(\d{4})\.h5")


def write(model: Any, path: Path) -> None:
    """Write the weights of a model.

    Args:
        model: a detector.
        path: the file; it is replaced when the new one is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, h5py.File(unfinished, "w") as file:
        for name, variable in kvision.variables(model).items():
            file[name] = np.asarray(variable)


class WriteCheckpoints(keras.callbacks.Callback):
    """Write the weights after each epoch.

    Args:
        path: of the files, with "{epoch:04d}" in it.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write a file; its epochs are counted from 1."""
        write(self.model, Path(self.path.format(epoch=epoch + 1)))


def find_last(model_dir: Path, name: str) -> Path:
    """Find the last file of the last run.

    Args:
        model_dir: where the folders of runs are.
        name: NAME of the configuration, in small letters.

    Returns:
        The file.

    Raises:
        FileNotFoundError: there is none.
    """
    pattern = re.compile(re.escape(name) + r"\d{8}T\d{4}")
    folders = model_dir.iterdir() if model_dir.is_dir() else []
    runs = sorted(folder for folder in folders if pattern.fullmatch(folder.name))
    if not runs:
        raise FileNotFoundError(
            f"There is no folder of a run in {model_dir}, such as "
            f"{name}20180131T2359. Train first, or check model_dir and NAME."
        )
    files = sorted(runs[-1].glob("mask_rcnn_*.h5"))
    if not files:
        raise FileNotFoundError(
            f"There is no mask_rcnn_*.h5 in {runs[-1]}, the last run: it ended before "
            "its first epoch did. Remove the folder to take the run before."
        )
    return files[-1]


def position_of(path: Path) -> tuple[str, int] | None:
    """Read from a file's name which run and epoch it is of.

    Args:
        path: such as logs/shapes20180131T2359/mask_rcnn_shapes_0012.h5.

    Returns:
        Name of the run's folder, and the epochs that are done; None for other names.
    """
    folder, file = _FOLDER.fullmatch(path.parent.name), _FILE.fullmatch(path.name)
    return (path.parent.name, int(file[1])) if folder and file else None


def load(
    model: Any, path: Path, by_name: bool = False, exclude: Sequence[str] = ()
) -> Report:
    """Fill a model with weights; nothing is assigned before everything fits.

    Args:
        model: a Mask R-CNN of `kvision.models` on "resnet50" or "resnet101".
        path: a file of matterport (`mask_rcnn_coco.h5`), of this module, of
            `kvision.weights.save` or of `keras.Model.save_weights`; or a ResNet of
            `keras.applications`.
        by_name: whether the file may lack layers, which then stay as they are.
        exclude: matterport's names of layers that stay as they are.

    Returns:
        What was matched, left fresh and not used.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it cannot be read or does not fit; a `ValueError`.
        ValueError: `exclude` names a layer that there is not.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}")
    checkpoint = read_checkpoint(path)
    if any("/vars/" in name for name in checkpoint):
        return _load_with_keras(model, path, exclude)
    source, layout, tensors = _in_terms_of_a_layout(checkpoint)
    owners = layer_names(model)
    _check_names(exclude, set(owners.values()))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    places = list(layout.places(model, shapes))
    wanted = [p for p in places if owners[id(p.variable)] not in exclude]
    found = [place for place in wanted if set(place.names) <= tensors.keys()]
    missing = [p.names[0] for p in wanted if not set(p.names) <= tensors.keys()]
    with naming(f"{path} ({source}) does not fit the configuration"):
        _check(found, missing, shapes, by_name)
    assign(Fit(matched=found), tensors)
    matched = tuple(dict.fromkeys(name for place in found for name in place.names))
    filled = {id(place.variable) for place in found}
    return Report(
        path,
        source,
        matched,
        resized=(),
        fresh=tuple(p.variable.path for p in places if id(p.variable) not in filled),
        unused=tuple(name for name in tensors if name not in set(matched)),
    )


def _in_terms_of_a_layout(
    checkpoint: Checkpoint,
) -> tuple[str, ModuleType, Checkpoint]:
    """Tell whose file it is, and name its tensors as the layout does."""
    if is_imagenet(set(checkpoint)):
        source, layout = "keras.applications", matterport
        tensors = in_our_terms(checkpoint)
    else:
        layout = kvision if kvision.recognises(set(checkpoint)) else matterport
        source = layout.__name__.rpartition(".")[2]
        tensors = {layout.renamed(n): tensor for n, tensor in checkpoint.items()}
    contents = Contents(tensors)
    return source, layout, Checkpoint(checkpoint.path, checkpoint.format, contents)


def _load_with_keras(model: Any, path: Path, exclude: Sequence[str]) -> Report:
    if exclude:
        raise ValueError(
            f"{path} was written by keras.Model.save_weights, which knows no names of "
            f"layers to exclude. Received: exclude={list(exclude)}. Load a file that "
            "training wrote, or of kvision.weights.save."
        )
    model.load_weights(path)
    return Report(path, "keras", tuple(v.path for v in model.weights), (), (), ())


def _check_names(exclude: Sequence[str], names: set[str]) -> None:
    if isinstance(exclude, str):
        raise ValueError(f"exclude must be a list of names. Received: {exclude!r}")
    unknown = sorted(set(exclude) - names - WEIGHTLESS)
    if unknown:
        raise ValueError(
            f"exclude names layers that there are not: {unknown}. The last ones of the "
            "heads are mrcnn_class_logits, mrcnn_bbox_fc and mrcnn_mask."
        )


def _check(
    found: list[Place],
    missing: list[str],
    shapes: dict[str, tuple[int, ...]],
    by_name: bool,
) -> None:
    if not found:
        raise CheckpointError(
            "none of its tensors has a name of matterport's or ours. They are called "
            f"{some(list(shapes))}"
        )
    misfits = [
        f"{name} {shapes[name]} instead of {shape}"
        for place in found
        for name, shape in zip(place.names, place.shapes, strict=True)
        if shapes[name] != shape
    ]
    if misfits:
        raise CheckpointError(
            f"{len(misfits)} tensors have other shapes: {some(misfits)}. If the "
            'classes are others, exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", '
            '"mrcnn_bbox", "mrcnn_mask"]. Nothing was loaded'
        )
    if missing and not by_name:
        raise CheckpointError(
            f"{len(missing)} tensors are missing: {some(missing)}. With by_name=True "
            "their layers stay as they are. Nothing was loaded"
        )
