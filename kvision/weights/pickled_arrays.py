"""NumPy's arrays as pickles describe them, without NumPy's own builders.

Those take memory for the shape that a file claims, and make arrays of objects.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from kvision.weights.checkpoint import CheckpointError, Tensor
from kvision.weights.dtypes import NUMBERS, byte_count, from_bytes, number_dtype
from kvision.weights.pickles import PickledTensor, Stateful

__all__ = ["ARRAYS"]

Data = bytes | bytearray | str
_CODES = {dtype.str[1:]: dtype for dtype in NUMBERS.values() if dtype.isbuiltin == 1}


class _Dtype(Stateful):
    """A dtype; its byte order comes as a state."""

    def __init__(self, code: Any, *_: Any) -> None:
        if _text(code) not in _CODES:
            raise CheckpointError(
                f"expected arrays of numbers, received the dtype {_text(code)[:40]!r}. "
                "Save the tensors of numbers alone"
            )
        self.dtype = _CODES[_text(code)]

    def set_state(self, state: Any) -> None:
        """Take (version, byte order, subtype, names, ...): numbers have no more."""
        _, order, subtype, names = state[:4]
        if subtype is not None or names is not None:
            raise CheckpointError("expected arrays of numbers, received records")
        self.dtype = self.dtype.newbyteorder(">" if _text(order) == ">" else "<")


@dataclasses.dataclass
class _Array(PickledTensor):
    """An array; what it holds comes as a state."""

    shape: Any = (0,)
    dtype: Any = None
    data: Any = b""
    columns_first: bool = False

    def set_state(self, state: Any) -> None:
        """Take (version, shape, dtype, whether in Fortran's order, bytes)."""
        _, self.shape, self.dtype, self.columns_first, self.data = state

    def tensor(self) -> Tensor:
        """Compare the shape with the bytes that came."""
        if not isinstance(self.dtype, _Dtype) or not isinstance(self.data, Data):
            raise CheckpointError("expected an array of numbers, received objects")
        stored = self.dtype.dtype
        expected = byte_count(self.shape, stored)
        shape = tuple(self.shape)
        if expected != len(self.data):
            raise CheckpointError(
                f"shape {shape} of {stored} takes {expected} bytes, {len(self.data)} "
                "came: the file is damaged"
            )
        load = functools.partial(
            _load, self.data, stored, shape, bool(self.columns_first)
        )
        return Tensor(shape, number_dtype(stored), load)


def _load(
    data: Data, stored: np.dtype, shape: tuple[int, ...], columns_first: bool
) -> np.ndarray:
    values = np.frombuffer(_bytes(data), np.uint8)
    return from_bytes(values, stored, shape, columns_first)


def _bytes(data: Data) -> bytes | bytearray:
    """Return bytes; Python 2 and protocols below 3 write them as text."""
    if not isinstance(data, str):
        return data
    try:
        return data.encode("latin-1")
    except UnicodeEncodeError as error:
        raise CheckpointError("its bytes are damaged") from error


def _text(name: Any) -> str:
    return name.decode("ascii") if isinstance(name, bytes) else str(name)


def _empty_array(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: Data) -> _Array:
    return _Array((), dtype, data)


def _array_of_buffer(data: Data, dtype: _Dtype, shape: Any, order: str) -> _Array:
    return _Array(shape, dtype, data, order == "F")


def _encoded(text: str, _: str) -> str:
    """Keep bytes as the text that they came in: half of the memory until read."""
    return text


def _empty_bytes() -> bytes:
    """Stand for how protocols below 3 write the bytes of an array without any."""
    return b""


# NumPy 2 renamed its modules; files of both are around.
ARRAYS: Mapping[str, Any] = {
    "_codecs.encode": _encoded,
    "__builtin__.bytes": _empty_bytes,
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": _Dtype,
    **{
        f"numpy.{core}.{name}": builder
        for core in ("core", "_core")
        for name, builder in (
            ("multiarray._reconstruct", _empty_array),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _array_of_buffer),
        )
    },
}
