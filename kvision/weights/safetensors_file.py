"""Safetensors: a header of json, then the bytes of the tensors."""

import functools
import json
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import safetensors
from safetensors import SafetensorError

from kvision.weights.byte_file import ByteFile
from kvision.weights.checkpoint import CheckpointError, Contents, Tensor, naming, shown
from kvision.weights.dtypes import NUMBERS, byte_count, from_bytes

__all__ = ["read_safetensors", "read_shards"]

_LENGTH_BYTES = 8
# Some 150 thousand tensors. The format's own limit, 100 MB, takes a gigabyte to read.
_MAX_HEADER = 2**24
_DTYPES = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    **{
        f"{kind}{8 * size}": f"{name}{8 * size}"
        for kind, name, sizes in (
            ("I", "int", (1, 2, 4, 8)),
            ("U", "uint", (1, 2, 4, 8)),
            ("F", "float", (2, 4, 8)),
        )
        for size in sizes
    },
}


def read_safetensors(source: ByteFile) -> Contents:
    """Find the tensors in a safetensors file.

    Args:
        source: the file.

    Returns:
        The tensors and the metadata of the header.

    Raises:
        CheckpointError: if the header is damaged or too long, a tensor lies outside of
            the file or over another one, or its type is none of NumPy's.
    """
    _check_length(source)
    # The package checks the layout: lengths, overlaps, gaps, sizes against shapes.
    try:
        with safetensors.safe_open(source.path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise CheckpointError(
            f"not a whole safetensors file ({error}). Download or copy it again"
        ) from error
    header, start = _header(source)
    metadata = header.pop("__metadata__", {})
    tensors = {name: _tensor(source, start, name, header[name]) for name in header}
    return Contents(tensors, metadata=metadata)


def read_shards(source: ByteFile) -> Contents:
    """Find the tensors of a model whose safetensors file was split.

    Args:
        source: `*.safetensors.index.json`, beside the files that it names.

    Returns:
        The tensors of all of them.

    Raises:
        CheckpointError: if the index names a file of another folder, or a tensor that
            is not where it says.
    """
    shards: dict[str, Contents] = {}
    tensors = {}
    for name, shard in _weight_map(source).items():
        if not isinstance(shard, str) or PurePath(shard).name != shard:
            raise CheckpointError(f"{shown(str(shard))!r} is no file beside the index")
        if shard not in shards:
            with naming(shown(shard)):
                shards[shard] = _shard(source.path.with_name(shard))
        if name not in shards[shard].tensors:
            raise CheckpointError(
                f"{shown(name)!r} is not in {shard}, as the index says"
            )
        tensors[name] = shards[shard].tensors[name]
    return Contents(tensors)


def _check_length(source: ByteFile) -> None:
    length = _header_length(source)
    if length > min(_MAX_HEADER, source.size):
        raise CheckpointError(
            f"its header is said to have {length} bytes: the file is incomplete, or "
            "has more tensors than any model"
        )


def _header_length(source: ByteFile) -> int:
    return int.from_bytes(source.read(0, _LENGTH_BYTES).tobytes(), "little")


def _header(source: ByteFile) -> tuple[dict[str, Any], int]:
    """Return the header and where the values begin."""
    length = _header_length(source)
    text = source.read(_LENGTH_BYTES, length).tobytes()
    try:
        return json.loads(text), _LENGTH_BYTES + length
    except (ValueError, RecursionError) as error:
        raise CheckpointError("its header is not plain json: damaged") from error


def _tensor(source: ByteFile, start: int, name: str, entry: dict[str, Any]) -> Tensor:
    if entry["dtype"] not in _DTYPES:
        raise CheckpointError(
            f"{shown(name)!r} has the type {entry['dtype']}; expected one of "
            f"{sorted(_DTYPES)}"
        )
    dtype = NUMBERS[_DTYPES[entry["dtype"]]]
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if end - begin != byte_count(shape, dtype):
        raise CheckpointError(f"{shown(name)!r} has another size than its shape takes")
    load = functools.partial(_load, source, start + begin, dtype, shape)
    return Tensor(shape, dtype, load)


def _load(
    source: ByteFile, offset: int, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    data = source.read(offset, byte_count(shape, dtype))
    return from_bytes(data, dtype, shape)


def _weight_map(source: ByteFile) -> dict[str, Any]:
    try:
        text = source.read(0, min(source.size, _MAX_HEADER)).tobytes()
        return dict(json.loads(text)["weight_map"])
    # Wrong text, wrong json, nested too deeply, another json.
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            "expected the index of a split safetensors file, json with a weight_map"
        ) from error


def _shard(path: Path) -> Contents:
    if path.suffix != ".safetensors":
        raise CheckpointError(
            "of split models only safetensors are read. Save the model in one file, "
            "or as safetensors"
        )
    if not path.is_file():
        raise CheckpointError("this part of the model is missing, put it there")
    return read_safetensors(ByteFile(path))
