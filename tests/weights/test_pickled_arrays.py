"""Pickles of NumPy arrays, as detectron2 publishes them."""

import pickle

import numpy as np
import pytest

from kvision.weights import CheckpointError, read_checkpoint
from tests.weights.bounded import bounded
from tests.weights.hostile import call, named, plain

ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">i4"),
    "half": np.arange(3, dtype=np.float16),
    "every_byte": np.arange(256, dtype=np.uint8),
    "bool": np.array([True, False]),
    "scalar": np.array(3.5),
    "number": np.float64(2.5),
    "empty": np.zeros((0, 2**20), np.float32),
}
# What Python 2 writes for {"model": {"weight": np.arange(3, dtype="f4") + 200}}: text
# of bytes, NumPy's old module. Written by hand after its pickletools listing.
PYTHON_2 = (
    b"\x80\x02}U\x05modelccollections\nOrderedDict\n]]U\x06weightacnumpy.core.multiarray"
    b"\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x03\x85cnumpy\ndtype\n"
    b"(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    b"U\x0c\x00\x00HC\x00\x00IC\x00\x00JCtbaa\x85Rs."
)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays(protocol, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": ARRAYS, "__author__": "me"}, protocol))
    checkpoint = read_checkpoint(path)
    assert (checkpoint.format, checkpoint.part) == ("pickle", "model")
    assert checkpoint.left_out == ("__author__",)
    assert list(checkpoint) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        array = checkpoint[name].read()
        assert array.dtype == checkpoint[name].dtype == expected.dtype.newbyteorder("=")
        assert array.dtype.isnative
        assert checkpoint[name].shape == expected.shape
        np.testing.assert_array_equal(array, expected, strict=expected.dtype.isnative)


def test_python_2(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(PYTHON_2)
    assert read_checkpoint(path)["weight"].read().tolist() == [200.0, 201.0, 202.0]


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, {}]),
        np.array(["text"]),
        np.array([b"text"]),
        np.zeros(2, [("a", "f4")]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, np.longdouble),
    ],
    ids=lambda array: array.dtype.str,
)
def test_arrays_of_anything_but_numbers(array, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": ARRAYS["weight"], "b": array}}))
    with pytest.raises(CheckpointError, match=r"numbers|datetime"):
        read_checkpoint(path)


def array(
    shape, data=bytes(8), dtype="f4", order="<", dtype_state=(None, None)
) -> bytes:
    """Return the steps of an array of NumPy with any of its numbers wrong."""
    kind = call("numpy.dtype", plain(dtype), plain(False), plain(True))
    state = plain((3, order, dtype_state[0], dtype_state[1], None, -1, -1, 0))
    content = b"(" + plain(1) + plain(shape) + kind + state + b"b" + plain(False)
    empty = call("numpy.core.multiarray._reconstruct", b"cnumpy\nndarray\n")
    return empty + content + plain(data) + b"tb"


WRONG = {
    "too large": array((3,)),
    "too small": array((1,)),
    "2**62": array((2**62,)),
    "overflow": array((2**32, 2**33)),
    "wraps to 8": array((2**62 + 2, 4)),
    "empty overflow": array((0, 2**62, 2**62), b""),
    "negative": array((-2,)),
    "negative twice": array((-1, -2)),
    "40 dimensions": array((1,) * 39 + (2,)),
    "text as shape": array("2"),
    "float as size": array((2.0,)),
    "nothing as shape": array(None),
    "list as data": array((2,), [1, 2]),
    "objects": array((1,), bytes(8), "O8"),
    "record": array((2,), dtype="f4,f4"),
    "subarray": array((2,), dtype="(2,)f4"),
    "long name": array((2,), dtype="f4," * 100_000),
    "number as dtype": array((2,), dtype=4),
    "names": array((2,), dtype_state=(None, ("a",))),
    "subtype": array((2,), dtype_state=(("f4", (2,)), None)),
    "text that is no bytes": array((2,), "\u20ac" * 8),
    "no state": call("numpy.core.multiarray._reconstruct", plain(0)),
    "short state": call("numpy.core.multiarray._reconstruct") + plain((1, 2)) + b"b",
    "frombuffer": call(
        "numpy._core.numeric._frombuffer",
        plain(bytes(8)),
        plain("f4"),
        plain((2,)),
        plain("C"),
    ),
    "scalar": call("numpy.core.multiarray.scalar", plain("f4"), plain(bytes(4))),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays_are_refused(name, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(named("weight", WRONG[name]))
    with bounded(), pytest.raises(CheckpointError):
        read_checkpoint(path)["weight"].read()


def test_a_sound_array_of_the_same_steps(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(named("weight", array((2,), np.float32([1, 2]).tobytes())))
    assert read_checkpoint(path)["weight"].read().tolist() == [1.0, 2.0]
