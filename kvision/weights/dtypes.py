"""The types of numbers that weights have, and how many bytes a tensor takes."""

from math import prod
from typing import Any

import ml_dtypes
import numpy as np

from kvision.weights.checkpoint import CheckpointError

__all__ = ["NUMBERS", "byte_count", "from_bytes", "number_dtype"]

# The names are NumPy's, ml_dtypes' and torch's alike.
_NUMPY = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
_MORE = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
NUMBERS: dict[str, np.dtype] = {name: np.dtype(name) for name in _NUMPY} | {
    name: np.dtype(getattr(ml_dtypes, name)) for name in _MORE
}
_MAX_DIMENSIONS = 32
_MAX_BYTES = 2**62


def number_dtype(dtype: np.dtype) -> np.dtype:
    """Admit a dtype of numbers.

    NumPy writes bfloat16, which it does not know, as two raw bytes ("V2").

    Args:
        dtype: as the file has it, in any byte order.

    Returns:
        The same numbers in the byte order of this machine.

    Raises:
        CheckpointError: if it is of objects, text, records or numbers not in `NUMBERS`.
    """
    if dtype == np.dtype("V2"):
        return NUMBERS["bfloat16"]
    if dtype.name not in NUMBERS:
        raise CheckpointError(
            f"expected numbers, received the dtype {str(dtype)[:60]}. Save the tensors "
            "of numbers alone"
        )
    return NUMBERS[dtype.name]


def byte_count(shape: Any, dtype: np.dtype) -> int:
    """Count the bytes of a tensor without taking memory.

    Args:
        shape: its dimensions, or whatever a file has in their place.
        dtype: its type.

    Returns:
        The bytes of all its values.

    Raises:
        CheckpointError: if no array can have this shape.
    """
    sound = isinstance(shape, tuple | list) and len(shape) <= _MAX_DIMENSIONS
    if not sound or not all(type(size) is int and size >= 0 for size in shape):
        raise CheckpointError("a shape is not a few whole numbers: the file is damaged")
    # NumPy refuses empty arrays too if their other dimensions overflow.
    if prod(size or 1 for size in shape) * dtype.itemsize > _MAX_BYTES:
        raise CheckpointError(
            f"the shape {str(tuple(shape))[:80]} fits no memory: the file is damaged"
        )
    return prod(shape) * dtype.itemsize


def from_bytes(
    data: np.ndarray,
    stored: np.dtype,
    shape: tuple[int, ...],
    columns_first: bool = False,
) -> np.ndarray:
    """Make a tensor of the bytes of one.

    Args:
        data: (N,) uint8 array with as many bytes as the tensor takes.
        stored: their type, in the byte order of the file.
        shape: the tensor's dimensions.
        columns_first: whether the first index varies fastest, as in Fortran.

    Returns:
        The tensor in C order and in the byte order of this machine.
    """
    native = number_dtype(stored)
    values = data.view(native if stored.kind == "V" else stored)
    if columns_first:
        return np.asarray(values.reshape(shape[::-1]).T, native, "C")
    return np.asarray(values.reshape(shape), native)
