"""Writing so that a kill, or a failed comparison, leaves what was there before."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from kvision.weights.replacing import replacing

__all__ = ["new_folder", "write_file"]


def write_file(path: Path, content: bytes) -> None:
    """Write a file and the folders that it is in; see `kvision.weights.replacing`.

    Args:
        path: the file; an existing one is replaced.
        content: its bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


@contextlib.contextmanager
def new_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write into that takes its place when the block succeeds.

    Args:
        path: its place.
        overwrite: whether an existing folder is replaced.

    Yields:
        An empty folder beside it, removed if the block raises.

    Raises:
        FileExistsError: there is something and `overwrite` is False.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists. Choose the next version, or pass overwrite=True to "
            "replace it."
        )
    temporary, old = _beside(path), _beside(path, ".old")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def _beside(path: Path, suffix: str = "") -> Path:
    # TF Serving takes only folders named by a number for versions.
    return path.with_name(f".{path.name}.{os.getpid()}{suffix}")
