"""A file that is read by position, a piece at a time."""

import io
import os
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kvision.weights.checkpoint import CheckpointError

__all__ = ["Block", "ByteFile"]


class ByteFile:
    """A file kept open for as long as a tensor needs it.

    Tensors that are read late come from the file that was checked, also when another
    one has taken its name since.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, count: int) -> np.ndarray:
        """Read bytes.

        Args:
            offset: where the first one is.
            count: how many.

        Returns:
            (count,) uint8 array of its own memory.

        Raises:
            CheckpointError: if the file ends before.
        """
        if min(offset, count) < 0 or offset + count > self.size:
            raise CheckpointError(
                f"expected {count} bytes at {offset}, but the file has {self.size}: it "
                "is incomplete or damaged. Download or copy it again"
            )
        block = np.empty(count, np.uint8)
        rest = memoryview(block.data)
        while rest:  # Linux reads at most 2 GB at once.
            read = os.preadv(self._descriptor, [rest], offset)
            if not read:
                raise CheckpointError("the file was shortened while it was read")
            offset, rest = offset + read, rest[read:]
        return block

    def stream(self) -> io.BufferedReader:
        """Open the file from its beginning for those who read in order."""
        return _Stream(os.dup(self._descriptor), self.size)


class _Stream(io.BufferedReader):
    """A buffered file that takes memory only for bytes that are there.

    Python's own takes it first, for whatever number a hostile file names.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(io.FileIO(descriptor))
        self.seek(0)
        self._size = size

    def read(self, count: int | None = -1, /) -> bytes:
        left = self._size - self.tell()
        return super().read(left if count is None or count < 0 else min(count, left))


@dataclass(frozen=True)
class Block:
    """A piece of a file.

    Attributes:
        source: the file.
        offset: where it begins.
        size: its bytes.
    """

    source: ByteFile
    offset: int
    size: int

    def read(self, start: int, count: int) -> np.ndarray:
        """Read bytes from `start` of the block on; see `ByteFile.read`."""
        if min(start, count) < 0 or start + count > self.size:
            raise CheckpointError(
                f"expected {count} bytes at {start} of a block that has {self.size}"
            )
        return self.source.read(self.offset + start, count)
