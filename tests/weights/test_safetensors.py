"""Safetensors, whole and split."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest

from kvision.weights import CheckpointError, read_checkpoint, write_safetensors
from tests.weights.bounded import bounded

KINDS = [
    *(np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32),
    *(np.uint64, np.float16, np.float32, np.float64, np.complex64),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
]


def raw(path, header, data=bytes(8)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape=(2,), dtype="F32", offsets=(0, 8)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


def test_every_type(tmp_path):
    """The files are the safetensors package's."""
    path = tmp_path / "weights.bin"  # the content tells, not the name
    arrays = {np.dtype(kind).name: np.arange(4).astype(kind) for kind in KINDS}
    arrays |= {"step": np.array(7), "empty": np.zeros((0, 3)), "matrix": np.eye(3)}
    write_safetensors(path, arrays, {"origin": "here"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "safetensors"
    assert checkpoint.metadata == {"origin": "here"}
    assert set(checkpoint) == set(arrays)
    for name, expected in arrays.items():
        tensor = checkpoint[name]
        assert (tensor.shape, tensor.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(tensor.read(), expected, strict=True)


def test_one_tensor_is_read_at_a_time(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {f"a{i}": np.zeros(2**20) for i in range(6)})
    with bounded(megabytes=10):
        for tensor in read_checkpoint(path).values():
            assert tensor.read().nbytes == 2**23


def test_the_file_that_was_checked_is_the_one_that_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": np.ones(3)})
    checkpoint = read_checkpoint(path)
    write_safetensors(path, {"a": np.zeros(1)})
    assert checkpoint["a"].read().tolist() == [1, 1, 1]


def test_a_file_that_is_shortened_while_it_is_open(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": np.ones(3)})
    checkpoint = read_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="a: the file was shortened"):
        checkpoint["a"].read()


WRONG = {
    "beyond the end": entry((4,), offsets=(0, 16)),
    "too short": entry((1,), offsets=(0, 4)),
    "gap": entry((1,), offsets=(4, 8)),
    "another size": entry((3,)),
    "2**62": entry((2**62,)),
    "overflow": entry((2**32, 2**32, 2)),
    "negative": entry((-2,)),
    "negative offset": entry(offsets=(-8, 0)),
    "backwards": entry(offsets=(8, 0)),
    "float as size": entry((2.0,)),
    "unknown type": entry(dtype="F31"),
    "4-bit type": entry((16,), dtype="F4"),
    "overlap": entry() | {"b": entry()["a"]},
    "list": [1],
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "no json": b"{weights}",
    "no text": b"{\xff\xfe",
    "metadata of numbers": {"__metadata__": {"a": 1}} | entry(),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_headers_are_refused(name, tmp_path):
    path = raw(tmp_path / "a.safetensors", WRONG[name])
    with bounded(), pytest.raises(CheckpointError):
        read_checkpoint(path)


@pytest.mark.parametrize("length", [2**40, 200_000_000, 100_000_001, 300, 9, 0])
def test_wrong_header_lengths_are_refused(length, tmp_path):
    path = raw(tmp_path / "a.safetensors", entry())
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with bounded(), pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_more_tensors_than_any_model(tmp_path):
    """A million of them would take a minute and a gigabyte."""
    path = raw(tmp_path / "a.safetensors", b"{" + b" " * 2**24 + b"}")
    with bounded(), pytest.raises(CheckpointError, match="more tensors than any"):
        read_checkpoint(path)


def test_an_index_of_any_length(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {}}')
    os.truncate(path, 2**36)
    with (
        bounded(megabytes=64),
        pytest.raises(CheckpointError, match="with a weight_map"),
    ):
        read_checkpoint(path)


def test_a_sound_header_of_the_same_form(tmp_path):
    path = raw(tmp_path / "a.safetensors", entry())
    assert read_checkpoint(path)["a"].read().tolist() == [0.0, 0.0]


@pytest.fixture
def split(tmp_path):
    """Write a model in two files; return a function that writes the index."""
    for name in ("a", "b"):
        write_safetensors(tmp_path / f"{name}.safetensors", {name: np.ones(2)})

    def index(**places):
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
        return path

    return index


def test_split_files(split):
    checkpoint = read_checkpoint(split(b="b.safetensors", a="a.safetensors"))
    assert list(checkpoint) == ["b", "a"]
    assert checkpoint["a"].read().tolist() == [1, 1]


@pytest.mark.parametrize(
    ("places", "word"),
    [
        ({"a": "c.safetensors"}, "missing"),
        ({"b": "a.safetensors"}, "'b' is not in a.safetensors"),
        ({"a": "../a.safetensors"}, "no file beside the index"),
        ({"a": "/a.safetensors"}, "no file beside the index"),
        ({"a": ".."}, "only safetensors"),
        ({"a": 3}, "no file beside the index"),
        ({"a": "pytorch_model-00001-of-00002.bin"}, "only safetensors are read"),
        ({}, "no tensors"),
    ],
)
def test_wrong_places_are_refused(places, word, split):
    with pytest.raises(CheckpointError, match=word):
        read_checkpoint(split(**places))


@pytest.mark.parametrize(
    "text", ['{"a": 1}', "{", '{"weight_map": 3}', '{"a":' * 99_999]
)
def test_other_json(text, tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="weight_map"):
        read_checkpoint(path)
