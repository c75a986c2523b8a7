"""What reading a weight file gives: names and tensors that are read when asked."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Contents",
    "Tensor",
    "naming",
    "printable",
    "shown",
]

_LONGEST = 120


class CheckpointError(ValueError):
    """A weight file that is damaged, hostile, or of a kind that is not read.

    Args:
        message: what is wrong; it becomes one line, whatever the names in the file.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor in a file, of which only size and type are known until it is read.

    Attributes:
        shape: its dimensions.
        dtype: its NumPy type; bfloat16 and the 8-bit floats are those of ml_dtypes.
        load: reads the values.
        label: file and name, for errors.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]
    label: str = "a tensor"

    def read(self) -> np.ndarray:
        """Read the values of this tensor, and of no other.

        Returns:
            An array of `shape` and `dtype` in C order and the machine's byte order.

        Raises:
            CheckpointError: if the values are damaged.
        """
        with naming(self.label):
            return self.load()


@dataclass(frozen=True)
class Contents:
    """What the reader of one format found in a file.

    Attributes:
        tensors: name -> tensor.
        part: name of the dict that they were taken from; "" is the whole file.
        left_out: names of what is in the file besides.
        metadata: text that the file carries.
    """

    tensors: Mapping[str, Tensor]
    part: str = ""
    left_out: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a weight file by name, in the order of the file.

    Attributes:
        path: the file.
        format: "safetensors", "npz", "torch", "pickle" or "hdf5".
        part: see `Contents`.
        left_out: see `Contents`.
        metadata: see `Contents`.
    """

    def __init__(self, path: Path, format: str, contents: Contents) -> None:
        self.path = path
        self.format = format
        self.part = contents.part
        self.left_out = contents.left_out
        self.metadata = dict(contents.metadata)
        self._tensors = {
            name: dataclasses.replace(tensor, label=f"{path}: {shown(name)}")
            for name, tensor in contents.tensors.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        part = f", part {self.part!r}" if self.part else ""
        return f"<Checkpoint {self.path}: {self.format}{part}, {len(self)} tensors>"


def printable(text: str) -> str:
    """Write out line breaks, codes of a terminal and halves of characters.

    Args:
        text: with names from a file in it.

    Returns:
        One line that any terminal shows as it is.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shown(name: str) -> str:
    """Shorten a name for an error: one in a file can take megabytes.

    Args:
        name: of a tensor or of a part of a file.

    Returns:
        All of a usual name.
    """
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."


@contextlib.contextmanager
def naming(subject: object) -> Iterator[None]:
    """Say in refusals of the block which file or tensor they are about."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{subject}: {error}") from error
