"""HDF5 as Keras writes it: datasets in groups, whole and uncompressed.

Only the structure is read by the HDF5 library; the values are read here, from where it
says that they are in this very file.
"""

import functools
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from kvision.weights.byte_file import Block, ByteFile
from kvision.weights.checkpoint import CheckpointError, Contents, Tensor, naming, shown
from kvision.weights.dtypes import byte_count, from_bytes, number_dtype

__all__ = ["read_hdf5"]

_MAX_DEPTH = 32


def read_hdf5(source: ByteFile) -> Contents:
    """Find the datasets in a file.

    Args:
        source: the file.

    Returns:
        The tensors by their paths, without the ":0" of Keras 2.

    Raises:
        CheckpointError: if it is damaged, has links or values outside of it, or
            datasets that are compressed or of something else than numbers.
    """
    try:
        with h5py.File(source.path, "r") as file:
            found = {name: _tensor(source, name, item) for name, item in _walk(file)}
    except CheckpointError:
        raise
    # The library reports damage in errors of many types.
    except Exception as error:
        raise CheckpointError(
            f"it is no whole HDF5 file ({str(error)[:120]}). Download or copy it again"
        ) from error
    tensors = {name.removesuffix(":0"): tensor for name, tensor in found.items()}
    if len(tensors) < len(found):
        raise CheckpointError('two datasets have the same name but for ":0"')
    return Contents(tensors)


def _walk(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Give every dataset with its path, following hard links only."""
    seen = set()
    groups = [("", file, 1)]
    while groups:
        prefix, group, depth = groups.pop(0)
        address = h5py.h5o.get_info(group.id).addr
        if depth > _MAX_DEPTH or address in seen:
            raise CheckpointError("its groups are nested too deeply, or in each other")
        seen.add(address)
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise CheckpointError(
                    f"{shown(prefix + name)!r} is a link to another file or place: "
                    "refused. Write the file again with the values in it"
                )
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append((f"{prefix}{name}/", item, depth + 1))
            else:
                yield prefix + name, item


def _tensor(source: ByteFile, name: str, item: Any) -> Tensor:
    with naming(shown(name)):
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            raise CheckpointError("expected a dataset of numbers")
        stored, shape = item.dtype, item.shape
        dtype = number_dtype(stored)
        if item.id.get_type() != h5py.h5t.py_create(stored, logical=True):
            raise CheckpointError(f"its numbers are stored as no {stored} is")
        block = Block(source, *_place(item, byte_count(shape, dtype)))
        if block.offset + block.size > source.size:
            raise CheckpointError("its values are not in the file: it is incomplete")
        return Tensor(shape, dtype, functools.partial(_load, block, stored, shape))


def _place(item: h5py.Dataset, size: int) -> tuple[int, int]:
    """Return the first byte and the number of bytes of a dataset's values."""
    if not size:
        return 0, 0
    plist = item.id.get_create_plist()
    if plist.get_external_count() or item.is_virtual:
        raise CheckpointError(
            "its values are in another file: refused. Write the file again with the "
            "values in it"
        )
    offset = item.id.get_offset()
    if offset is None or item.id.get_storage_size() != size:
        raise CheckpointError(
            f"expected {size} bytes in one piece. Write the file again without chunks "
            "or compression"
        )
    return offset, size


def _load(block: Block, stored: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    return from_bytes(block.read(0, block.size), stored, shape)
