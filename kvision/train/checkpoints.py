"""Checkpoints on disk: arrays and a manifest that says what they are.

A checkpoint is two files, `000012.safetensors` with arrays and `000012.json` with the
manifest: where training stood, and the size and SHA-256 of the arrays. The manifest is
written last, carries a checksum of itself, and without it the arrays do not count; so
a kill, a full disk or a flipped bit costs at most the newest checkpoint. The one before
is kept for that. No TensorFlow here.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kvision.train.files import write_text
from kvision.weights.replacing import replacing

__all__ = ["Checkpoint", "CheckpointError", "read_newest", "write"]

Arrays = dict[str, np.ndarray]

_KEPT = 2
_FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, read and checked.

    Attributes:
        number: counts the checkpoints of a run from 1.
        arrays: name -> array.
        state: what else was saved: plain values, as json knows them.
        damaged: why newer checkpoints could not be used, one text for each.
    """

    number: int
    arrays: Arrays
    state: dict[str, Any]
    damaged: tuple[str, ...] = ()


def write(folder: Path, arrays: Arrays, state: dict[str, Any]) -> int:
    """Write a checkpoint after the others, then remove all but the newest two.

    Args:
        folder: where the checkpoints of the run are; made if need be.
        arrays: name -> array.
        state: plain values, as json knows them.

    Returns:
        The number of the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = max(_numbers(folder), default=0) + 1
    tensors = _tensors(folder, number)
    with replacing(tensors) as unfinished:
        save_file(arrays, unfinished)
        manifest = {
            "format": _FORMAT,
            "size": unfinished.stat().st_size,
            "sha256": _sha256(unfinished),
            "state": state,
        }
    content = {"checksum": _checksum(manifest), "manifest": manifest}
    write_text(_manifest(folder, number), json.dumps(content, indent=1) + "\n")
    _remove_old(folder)
    return number


def read_newest(folder: Path) -> Checkpoint:
    """Read the newest checkpoint that is whole.

    Args:
        folder: where the checkpoints of the run are.

    Returns:
        The checkpoint, with the damage of newer ones.

    Raises:
        CheckpointError: if there is none, or none is whole.
    """
    damaged: list[str] = []
    for number in sorted(_numbers(folder), reverse=True):
        try:
            arrays, state = _read(folder, number)
        except CheckpointError as error:
            damaged.append(str(error))
        else:
            return Checkpoint(number, arrays, state, tuple(damaged))
    if damaged:
        raise CheckpointError("No checkpoint is whole. " + " ".join(damaged))
    raise CheckpointError(f"{folder} holds no checkpoint")


def _read(folder: Path, number: int) -> tuple[Arrays, dict[str, Any]]:
    manifest = _read_manifest(_manifest(folder, number))
    tensors = _tensors(folder, number)
    try:
        size = tensors.stat().st_size
        if size != manifest["size"]:
            raise CheckpointError(
                f"{tensors} has {size} bytes instead of {manifest['size']}."
            )
        if _sha256(tensors) != manifest["sha256"]:
            raise CheckpointError(f"{tensors} is damaged: its checksum is wrong.")
        return load_file(tensors), manifest["state"]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{tensors} cannot be read: {error}.") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        manifest = content["manifest"]
        if content["checksum"] != _checksum(manifest):
            raise CheckpointError(f"{path} is damaged: its checksum is wrong.")
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no manifest of a checkpoint.") from error
    if manifest["format"] != _FORMAT:
        raise CheckpointError(
            f"{path} has the format {manifest['format']}, this version of kvision "
            f"reads {_FORMAT}."
        )
    return dict(manifest)


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of all manifests, whole or not."""
    files = folder.glob("[0-9]*.json") if folder.is_dir() else ()
    return [int(file.stem) for file in files if file.stem.isdecimal()]


def _remove_old(folder: Path) -> None:
    """Remove all but the newest checkpoints, and what a kill left unfinished."""
    kept = sorted(_numbers(folder))[-_KEPT:]
    for file in sorted(folder.glob("[0-9]*.json")) + sorted(
        folder.glob("[0-9]*.safetensors")
    ):
        if file.stem.isdecimal() and int(file.stem) not in kept:
            file.unlink(missing_ok=True)
    for file in folder.glob(".[0-9]*"):
        file.unlink(missing_ok=True)


def _manifest(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def _tensors(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.safetensors"


def _checksum(manifest: dict[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
