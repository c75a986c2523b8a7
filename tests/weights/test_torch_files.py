"""Files of torch itself; `record_torch_files.py` has written them and their values."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from kvision.weights import CheckpointError, read_checkpoint
from tests.weights.hostile import legacy_torch, named, torch_zip, view

GOLDEN = Path(__file__).parent / "golden"
DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float8": ml_dtypes.float8_e4m3fn}


@pytest.mark.parametrize(
    "name", ["zip", "legacy", "protocol4", "newer", "no_checksums", "training"]
)
def test_values_are_torchs(name):
    checkpoint = read_checkpoint(GOLDEN / f"{name}.pth")
    assert checkpoint.format == "torch"
    with np.load(GOLDEN / f"{name}.npz") as values:
        expected = {key.removeprefix("module."): values[key] for key in values}
    assert list(checkpoint) == list(expected)
    for key, tensor in checkpoint.items():
        array = tensor.read()
        assert tensor.shape == array.shape == expected[key].shape
        assert tensor.dtype == array.dtype == DTYPES.get(key, expected[key].dtype)
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array.astype(expected[key].dtype), expected[key])


def test_the_part_of_a_training_checkpoint():
    checkpoint = read_checkpoint(GOLDEN / "training.pth")
    assert checkpoint.part == "model"
    assert checkpoint.left_out == ("optimizer", "epoch", "best", "args")
    assert checkpoint["0.weight"].shape == (2, 3)  # in the file: "module.0.weight"


def test_another_part_when_asked():
    checkpoint = read_checkpoint(GOLDEN / "training.pth", part="optimizer")
    assert checkpoint.part == "optimizer"
    assert checkpoint["state/0/exp_avg"].shape == (2, 3)
    assert "param_groups" in checkpoint.left_out


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("quantised", "quantised"),
        ("sparse", "to_dense"),
        ("torchscript", "TorchScript"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(name, word):
    with pytest.raises(CheckpointError, match=word):
        read_checkpoint(GOLDEN / f"{name}.pth")


def test_big_endian_files_are_refused(tmp_path):
    content = named("weight", view((4,), (1,)))
    for path in (
        torch_zip(tmp_path / "zip", content, byteorder=b"big"),
        legacy_torch(tmp_path / "legacy", content, little_endian=False),
    ):
        with pytest.raises(CheckpointError, match="big-endian"):
            read_checkpoint(path)


def test_a_view_takes_no_more_memory_than_itself(tmp_path):
    """Of a storage that others share only the part in question is read."""
    content = named("weight", view((2,), (2,), 1))
    values = np.arange(4, dtype="f4").tobytes()
    path = torch_zip(tmp_path / "file", content, **{"data/0": values})
    assert read_checkpoint(path)["weight"].read().tolist() == [1.0, 3.0]


def test_damaged_values_do_not_fit_their_checksum(tmp_path):
    path = torch_zip(tmp_path / "file", named("weight", view((4,), (1,))))
    path.write_bytes(path.read_bytes().replace(bytes(16), bytes(15) + b"x"))
    with pytest.raises(CheckpointError, match=r"file: weight: .*checksum"):
        read_checkpoint(path)["weight"].read()


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_a_file_that_ends_within_its_values_is_refused_when_opened(name, tmp_path):
    path = tmp_path / "file"
    path.write_bytes((GOLDEN / f"{name}.pth").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        read_checkpoint(path)
