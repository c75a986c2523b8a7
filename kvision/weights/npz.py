"""NumPy's .npz: arrays in a zip archive. Pickled ones are refused."""

import functools
import io
from collections.abc import Mapping

import numpy as np

from kvision.weights.checkpoint import CheckpointError, Contents, Tensor, naming, shown
from kvision.weights.dtypes import byte_count, from_bytes, number_dtype
from kvision.weights.zips import Entry

__all__ = ["read_npz"]

_SUFFIX = ".npy"
_HEADER_BYTES = 16384


def read_npz(entries: Mapping[str, Entry]) -> Contents:
    """Find the arrays in an archive of NumPy.

    Args:
        entries: the archive's, by name.

    Returns:
        The arrays by their names without ".npy".

    Raises:
        CheckpointError: if a header is damaged, or tells of something else than
            numbers or of another size than is stored.
    """
    tensors, left_out = {}, []
    for name, entry in entries.items():
        if name.endswith(_SUFFIX):
            with naming(shown(name)):
                tensors[name.removesuffix(_SUFFIX)] = _tensor(entry)
        else:
            left_out.append(name)
    return Contents(tensors, left_out=tuple(left_out))


def _tensor(entry: Entry) -> Tensor:
    shape, columns, stored, start = _header(entry.head(_HEADER_BYTES))
    dtype = number_dtype(stored)
    expected = byte_count(shape, dtype)
    if entry.size - start != expected:
        raise CheckpointError(
            f"shape {shape} of {dtype} takes {expected} bytes, "
            f"{entry.size - start} are stored: the file is damaged"
        )
    load = functools.partial(_load, entry, start, stored, shape, columns)
    return Tensor(shape, dtype, load)


def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, whether columns come first, dtype, and where the values begin."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        # Version 3 differs in the names of record fields, which no tensor has.
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        return *read(stream), stream.tell()
    # The header is Python's notation: damaged ones raise errors of many types.
    except Exception as error:
        raise CheckpointError("its header is not one that NumPy writes") from error


def _load(
    entry: Entry, start: int, stored: np.dtype, shape: tuple[int, ...], columns: bool
) -> np.ndarray:
    # The whole entry, since its checksum covers the header too.
    return from_bytes(entry.read(0, entry.size)[start:], stored, shape, columns)
