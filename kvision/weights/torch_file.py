"""Files of `torch.save`: zip archives since torch 1.6, a row of pickles before."""

import io
from collections.abc import Mapping
from typing import IO, Any

from kvision.weights.byte_file import Block, ByteFile
from kvision.weights.checkpoint import CheckpointError, Contents
from kvision.weights.parts import contents_of
from kvision.weights.pickled_arrays import ARRAYS
from kvision.weights.pickles import CONTAINERS, unpickle
from kvision.weights.torch_tensors import TORCH, Storage, StorageType
from kvision.weights.zips import Entry

__all__ = ["ADMITTED", "LEGACY_MAGIC", "read_legacy_torch", "read_torch_zip"]

ADMITTED: Mapping[str, Any] = {**CONTAINERS, **ARRAYS, **TORCH}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_COUNT_BYTES = 8
# Names and shapes of the largest models take a few MB; values lie outside.
_MAX_PICKLE = 256 * 2**20
_MAX_COUNT = 2**62
_BIG_ENDIAN = (
    "it was written on a big-endian machine. Write it again with torch on another one"
)


def read_torch_zip(
    entries: Mapping[str, Entry], folder: str, part: str | None
) -> Contents:
    """Find the tensors in an archive of torch.

    Args:
        entries: the archive's, by name.
        folder: the one in it that has the file data.pkl.
        part: see `contents_of`.

    Returns:
        The tensors.

    Raises:
        CheckpointError: if it is damaged, hostile or a TorchScript program.
    """
    if f"{folder}/constants.pkl" in entries:
        raise CheckpointError(
            "it is a TorchScript program. Save its tensors alone with torch: "
            'torch.save(torch.jit.load("…").state_dict(), "…")'
        )
    order = entries.get(f"{folder}/byteorder")
    if order and order.head(8) != b"little":
        raise CheckpointError(_BIG_ENDIAN)

    def storage(identity: Any) -> Storage:
        kind, key, size = _identity(identity)
        entry = entries.get(f"{folder}/data/{key}")
        if entry is None or entry.size != size:
            raise CheckpointError(f"the values of storage {key[:40]!r} are incomplete")
        return Storage(kind, size, entry)

    pickle = entries[f"{folder}/data.pkl"]
    if pickle.size > _MAX_PICKLE:
        raise CheckpointError(f"its pickle is larger than {_MAX_PICKLE} bytes")
    stream = io.BytesIO(pickle.read(0, pickle.size).tobytes())
    return contents_of(unpickle(stream, ADMITTED, storage), part)


def read_legacy_torch(
    source: ByteFile, stream: IO[bytes], part: str | None
) -> Contents:
    """Find the tensors in a file of torch before 1.6.

    Args:
        source: the file.
        stream: the same, behind the pickle of `LEGACY_MAGIC`.
        part: see `contents_of`.

    Returns:
        The tensors.

    Raises:
        CheckpointError: if it is damaged or hostile.
    """
    if unpickle(stream, {}) != _LEGACY_PROTOCOL:
        raise CheckpointError("it is of an unknown version of torch's old format")
    system = unpickle(stream, {})
    if not isinstance(system, dict) or not system.get("little_endian", True):
        raise CheckpointError(_BIG_ENDIAN)
    storages: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        kind, key, size = _identity(identity)
        known = storages.setdefault(key, Storage(kind, size))
        if (known.type, known.size) != (kind, size):
            raise CheckpointError("two tensors disagree on their storage: damaged")
        return known

    tree = unpickle(stream, ADMITTED, storage)
    _place(source, storages, unpickle(stream, {}), stream.tell())
    return contents_of(tree, part)


def _identity(identity: Any) -> tuple[StorageType, str, int]:
    """Return type, key and bytes of a storage that a pickle refers to."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6):
        raise CheckpointError("its pickle refers to something that is no storage")
    word, kind, key, _, count, *view = identity
    sound = isinstance(kind, StorageType) and isinstance(key, str)
    if word != "storage" or not sound or type(count) is not int:
        raise CheckpointError("its pickle refers to something that is no storage")
    if view not in ([], [None]) or not 0 <= count < _MAX_COUNT:
        raise CheckpointError(
            "a storage is part of another one, as before torch 0.4, or of impossible "
            "size. Write the file again with a newer torch"
        )
    return kind, key, count * kind.itemsize


def _place(
    source: ByteFile, storages: Mapping[str, Storage], keys: Any, position: int
) -> None:
    """Find where the values of each storage are: one behind the other, by `keys`."""
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise CheckpointError("its list of storages does not fit its tensors: damaged")
    for key in keys:
        storage = storages[key]
        count = source.read(position, _COUNT_BYTES).tobytes()
        size = int.from_bytes(count, "little") * storage.type.itemsize
        position += _COUNT_BYTES
        if size != storage.size or position + size > source.size:
            raise CheckpointError(
                f"expected {storage.size} bytes of values at {position}: the file is "
                "incomplete or damaged. Download or copy it again"
            )
        storage.content = Block(source, position, size)
        position += size
