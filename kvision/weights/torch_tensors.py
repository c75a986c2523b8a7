"""torch's tensors as its pickles describe them: views of storages."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from kvision.weights.checkpoint import CheckpointError, Tensor
from kvision.weights.dtypes import NUMBERS, byte_count
from kvision.weights.pickles import PickledTensor, Refused

__all__ = ["TORCH", "Storage", "StorageType"]

_MAX_STRIDE = 2**62


class Bytes(Protocol):
    """Where the values of a storage are."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, start: int, count: int) -> np.ndarray:
        """Read (count,) uint8 from `start` on."""


@dataclasses.dataclass(frozen=True)
class StorageType:
    """The type of a storage; without a dtype it counts bytes."""

    dtype: np.dtype | None

    @property
    def itemsize(self) -> int:
        """Bytes of one of its elements."""
        return self.dtype.itemsize if self.dtype is not None else 1


@dataclasses.dataclass
class Storage:
    """The memory that tensors share.

    Attributes:
        type: the type of its elements.
        size: its bytes.
        content: where they are; the old format tells only after the tensors.
    """

    type: StorageType
    size: int
    content: Bytes | None = None

    def read(self, start: int, count: int) -> np.ndarray:
        """Read (count,) uint8 from `start` of this storage on."""
        if self.content is None:
            raise CheckpointError("a tensor has no values in the file")
        return self.content.read(start, count)


@dataclasses.dataclass
class _View(PickledTensor):
    """A tensor: some elements of a storage."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any
    dtype: Any

    def set_state(self, state: Any) -> None:
        """Drop what a `Parameter` of torch 0.1 tells of its gradient."""

    def tensor(self) -> Tensor:
        """Compare the view with the bytes that its storage has."""
        if not isinstance(self.storage, Storage) or not isinstance(
            self.dtype, np.dtype
        ):
            raise CheckpointError("a tensor has no storage or no type: it is damaged")
        size = byte_count(self.shape, self.dtype)
        shape, strides = tuple(self.shape), self.strides
        begin, count = _extent(self.offset, shape, strides, self.dtype.itemsize)
        # A view may repeat its elements: a small file would fill the memory.
        if max(size, begin + count) > self.storage.size:
            raise CheckpointError(
                f"a tensor of shape {shape} does not fit into the {self.storage.size} "
                "bytes it is said to lie in: refused"
            )
        load = functools.partial(
            _load, self.storage, begin, count, self.dtype, shape, strides
        )
        return Tensor(shape, self.dtype, load)


def _extent(
    offset: Any, shape: tuple[int, ...], strides: Any, itemsize: int
) -> tuple[int, int]:
    """Return the first byte of a view in its storage, and how many it spans."""
    steps = (offset, *strides) if isinstance(strides, tuple | list) else ()
    sound = all(type(step) is int and 0 <= step < _MAX_STRIDE for step in steps)
    if not sound or len(steps) != len(shape) + 1:
        raise CheckpointError("a tensor has impossible strides: the file is damaged")
    if 0 in shape:
        return 0, 0
    last = sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    return offset * itemsize, (last + 1) * itemsize


def _load(
    storage: Storage,
    begin: int,
    count: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> np.ndarray:
    values = storage.read(begin, count).view(dtype)
    if 0 in shape:
        return values.reshape(shape)
    # One that is never taken may be of any length; NumPy computes with it.
    steps = [
        step * dtype.itemsize if size > 1 else 0
        for size, step in zip(shape, strides, strict=True)
    ]
    view = np.lib.stride_tricks.as_strided(values, shape, steps)
    return np.asarray(view, order="C")


def _typed_view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    """Stand for torch's `_rebuild_tensor`, also version 2."""
    dtype = storage.type.dtype if isinstance(storage, Storage) else None
    return _View(storage, offset, shape, strides, dtype)


def _untyped_view(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    *_: Any,
) -> _View:
    """Stand for torch's `_rebuild_tensor_v3`, which brings the dtype itself."""
    return _View(storage, offset, shape, strides, dtype)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _size(sizes: Any = ()) -> Any:
    return sizes


_STORAGES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
_QUANTISED = Refused(
    "it has quantised tensors. Save those of the model before its quantisation"
)
_SPARSE = Refused("it has sparse tensors. Save them as dense ones: tensor.to_dense()")
TORCH: Mapping[str, Any] = {
    "torch._utils._rebuild_tensor": _typed_view,
    "torch._utils._rebuild_tensor_v2": _typed_view,
    "torch._utils._rebuild_tensor_v3": _untyped_view,
    "torch._utils._rebuild_qtensor": _QUANTISED,
    "torch._utils._rebuild_sparse_tensor": _SPARSE,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": _size,
    "torch.storage.UntypedStorage": StorageType(None),
    **{f"torch.{name}": dtype for name, dtype in NUMBERS.items()},
    **{
        f"torch.{name}Storage": StorageType(NUMBERS[dtype])
        for name, dtype in _STORAGES.items()
    },
}
