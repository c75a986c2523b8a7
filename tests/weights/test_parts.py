"""Which dict of a pickle is taken, and what its tensors are called."""

import pickle

import numpy as np
import pytest

from kvision.weights import CheckpointError, read_checkpoint

ONE = np.ones(2, np.float32)


@pytest.fixture
def read(tmp_path):
    def read_content(content, part=None):
        path = tmp_path / "file.pkl"
        path.write_bytes(pickle.dumps(content))
        return read_checkpoint(path, part)

    return read_content


def test_the_file_itself(read):
    checkpoint = read({"a": ONE, "b": {"c": ONE, 3: ONE}, "d": "text"})
    assert (list(checkpoint), checkpoint.part) == (["a", "b/c", "b/3"], "")
    assert checkpoint.left_out == ("d",)


@pytest.mark.parametrize("name", ["model", "state_dict", "model_ema"])
def test_the_usual_names_go_before_tensors_beside_them(read, name):
    checkpoint = read({"best": ONE, name: {"a": ONE}, "optimizer": {"x": ONE}})
    assert (list(checkpoint), checkpoint.part) == (["a"], name)
    assert checkpoint.left_out == ("best", "optimizer")


def test_the_only_dict_of_tensors(read):
    checkpoint = read({"net": {"a": ONE}, "epoch": 3})
    assert (list(checkpoint), checkpoint.part) == (["a"], "net")


def test_several_to_choose_from(read):
    content = {"student": {"a": ONE}, "teacher": {"a": 2 * ONE}}
    with pytest.raises(CheckpointError, match="'student', 'teacher'"):
        read(content)
    assert read(content, "teacher")["a"].read().tolist() == [2, 2]
    with pytest.raises(CheckpointError, match="no part 'pupil'"):
        read(content, "pupil")


def test_module_is_dropped_only_from_every_name(read):
    assert list(read({"module.a": ONE, "module.b": ONE})) == ["a", "b"]
    assert list(read({"module.a": ONE, "b": ONE})) == ["module.a", "b"]


def test_two_tensors_of_one_name(read):
    with pytest.raises(CheckpointError, match="two tensors have the name 'a/b'"):
        read({"a": {"b": ONE}, "a/b": ONE})


@pytest.mark.parametrize("content", [[ONE], ONE, "text", 3, None])
def test_no_dict(read, content):
    with pytest.raises(CheckpointError, match="expected a dict"):
        read(content)


def test_no_tensors(read):
    with pytest.raises(CheckpointError, match="no tensors"):
        read({"epoch": 3})
