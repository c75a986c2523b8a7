"""Safetensors are whole or not there."""

import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from safetensors.numpy import load_file

from kvision.weights import CheckpointError, read_checkpoint, write_safetensors, writing

OLD = {"a": np.arange(3.0)}


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, OLD)
    return path


def test_the_package_reads_what_we_write(old):
    arrays = {
        "transposed": np.arange(6, dtype="f4").reshape(2, 3).T,
        "big_endian": np.arange(3, dtype=">i4"),
        "scalar": np.array(3.0),
        "part": np.arange(10)[::3],
    }
    write_safetensors(old, arrays)
    found = load_file(old)
    assert set(found) == set(arrays)
    for name, expected in arrays.items():
        assert found[name].shape == expected.shape
        np.testing.assert_array_equal(found[name], expected)


def test_who_may_read_the_file_is_as_for_any_file(old):
    (old.parent / "other").touch()
    assert old.stat().st_mode == (old.parent / "other").stat().st_mode


def test_arrays_of_anything_but_numbers(old):
    with pytest.raises(CheckpointError, match="expected numbers"):
        write_safetensors(old, {"a": np.array(["text"])})


def assert_old(path):
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert read_checkpoint(path)["a"].read().tolist() == [0, 1, 2]


def test_a_writer_that_raises_leaves_the_old_file(old, monkeypatch):
    def full_disk(arrays, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(writing, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(old, {"a": np.zeros(9)})
    assert_old(old)


@pytest.mark.slow  # it imports TensorFlow in a process of its own
def test_a_killed_writer_leaves_the_old_file(old):
    program = """
        import os, signal, sys
        import numpy as np
        from kvision.weights import writing

        def killed(arrays, path, metadata):
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

        writing.save_file = killed
        writing.write_safetensors(sys.argv[1], {"a": np.zeros(9)})
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(old)]
    ended = subprocess.run(command, check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    for unfinished in old.parent.glob(".*"):
        unfinished.unlink()
    assert_old(old)
