"""Images by number, kept in memory or in a folder once they have been loaded."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["ImageCache", "file_fingerprint"]

Loaded = tuple[np.ndarray, tuple[int, int]]


class ImageCache:
    """Images by number: loaded at each call, or once.

    Args:
        load: takes a number; returns an image and the (height, width) of its original.
        name: takes a number; returns a file name that changes when the image does.
        cache: False for none, True for memory, a path for a folder.
    """

    def __init__(
        self,
        load: Callable[[int], Loaded],
        name: Callable[[int], str],
        cache: bool | str | os.PathLike[str],
    ) -> None:
        self.load = load
        self.name = name
        self.cache = cache
        self.memory: dict[int, Loaded] = {}

    def __call__(self, index: int) -> Loaded:
        """Return an image and the (height, width) of its original."""
        if self.cache is False:
            return self.load(index)
        if self.cache is True:
            if index not in self.memory:
                self.memory[index] = self.load(index)
            return self.memory[index]
        return self._from_folder(index, Path(self.cache))

    def _from_folder(self, index: int, folder: Path) -> Loaded:
        name = f"{self.name(index)}.npz"
        path = folder / name
        if path.exists():
            with np.load(path, allow_pickle=False) as content:
                height, width = content["size"].tolist()
                return content["image"], (height, width)
        image, original = self.load(index)
        folder.mkdir(parents=True, exist_ok=True)
        # Renamed when complete: a killed run leaves no half image behind.
        part = folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
        with open(part, "wb") as file:
            np.savez(file, image=image, size=np.asarray(original))
        os.replace(part, path)
        return image, original


def file_fingerprint(path: str | os.PathLike[str]) -> str:
    """Return a name that changes when a file does: of its path, length and time."""
    path = os.path.abspath(path)
    facts = os.stat(path)
    text = f"{path}/{facts.st_size}/{facts.st_mtime_ns}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
