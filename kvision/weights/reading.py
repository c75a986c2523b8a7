"""Weight files of any format that is read, told apart by what is in them."""

import codecs
from os import PathLike
from pathlib import Path

from kvision.weights.byte_file import ByteFile
from kvision.weights.checkpoint import Checkpoint, CheckpointError, Contents, naming
from kvision.weights.hdf5 import read_hdf5
from kvision.weights.npz import read_npz
from kvision.weights.parts import contents_of
from kvision.weights.pickles import unpickle
from kvision.weights.safetensors_file import read_safetensors, read_shards
from kvision.weights.torch_file import (
    ADMITTED,
    LEGACY_MAGIC,
    read_legacy_torch,
    read_torch_zip,
)
from kvision.weights.zips import zip_entries

__all__ = ["read_checkpoint"]

_HEAD_BYTES = 64
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_HDF5 = b"\x89HDF\r\n\x1a\n"
# Since protocol 2; then how a dict begins in protocols 0 and 1.
_PICKLE = (b"\x80", b"(d", b"}", b"ccollections\n")


def read_checkpoint(path: str | PathLike[str], part: str | None = None) -> Checkpoint:
    """Open a weight file of any framework; no code in it is run.

    Read are safetensors (also split ones, by their index), NumPy's .npz, files of
    `torch.save`, pickles of arrays and HDF5. The content tells which one it is, not the
    name. Every size is checked before memory is taken, and values are read when
    `Tensor.read` asks for them.

    Args:
        path: the file.
        part: for a pickle or a file of torch, the key of the dict to take. None: that
            of the weights, as `kvision.weights.parts` finds it; `Checkpoint.part` and
            `Checkpoint.left_out` say what was taken.

    Returns:
        The tensors by name.

    Raises:
        CheckpointError: if the file is damaged, hostile, of another kind, or without
            tensors.
        OSError: if it is missing or may not be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or a pipe"
        raise CheckpointError(f"{path}: expected a weight file, it is {what}")
    with naming(path):
        format, contents = _read(ByteFile(path), part)
        if not contents.tensors:
            raise CheckpointError(f"there are no tensors in this {format} file")
        if part and contents.part != part:
            raise CheckpointError(f"a {format} file has no parts, remove part={part!r}")
    return Checkpoint(path, format, contents)


def _read(source: ByteFile, part: str | None) -> tuple[str, Contents]:
    head = source.read(0, min(_HEAD_BYTES, source.size)).tobytes()
    if head.startswith(_ZIP):
        return _read_zip(source, part)
    if head.startswith(_HDF5):
        return "hdf5", read_hdf5(source)
    # A length of eight bytes, then json.
    if head[8:9] == b"{" and head[7:8] == b"\x00":
        return "safetensors", read_safetensors(source)
    if head.startswith(b"{"):
        return "safetensors", read_shards(source)
    if head.startswith(_PICKLE):
        return _read_pickle(source, part)
    raise CheckpointError(_what_it_is(head))


def _read_zip(source: ByteFile, part: str | None) -> tuple[str, Contents]:
    entries = zip_entries(source)
    folders = [
        name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")
    ]
    if len(folders) == 1:
        return "torch", read_torch_zip(entries, folders[0], part)
    if "model.weights.h5" in entries:
        raise CheckpointError("it is a Keras model: use keras.saving.load_model")
    if any(name.endswith(".npy") for name in entries):
        return "npz", read_npz(entries)
    raise CheckpointError(
        "it is an archive, but neither NumPy's (.npz) nor torch's. If a weight file is "
        "packed in it, unpack it first"
    )


def _read_pickle(source: ByteFile, part: str | None) -> tuple[str, Contents]:
    with source.stream() as stream:
        tree = unpickle(stream, ADMITTED)
        if tree == LEGACY_MAGIC:
            return "torch", read_legacy_torch(source, stream, part)
    return "pickle", contents_of(tree, part)


def _what_it_is(head: bytes) -> str:
    page = head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")
    kinds = (
        (not head, "it is empty"),
        (page, "it is a web page"),
        (
            head.startswith(b"version https://git-lfs"),
            "it is a pointer of git-lfs, whose file `git lfs pull` fetches",
        ),
        (head.startswith(b"\x1f\x8b"), "it begins as gzip does and is to be unpacked"),
    )
    found = next(
        (text for holds, text in kinds if holds), f"it begins with {head[:8]!r}"
    )
    return (
        "expected safetensors, .npz, a file of torch.save, a pickle or HDF5, but "
        f"{found}. Download it again, or convert it"
    )
