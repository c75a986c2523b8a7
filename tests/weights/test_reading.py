"""What a file is, told from its content, and refused if it is none of ours."""

import os

import numpy as np
import pytest

from kvision.weights import CheckpointError, read_checkpoint, write_safetensors


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\n<html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"\xef\xbb\xbf<!doctype html>", "web page"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"x", "begins with"),
        (b"\x00" * 600, "begins with"),
        (b"PK\x03\x04", "archive is incomplete"),
        (b"PK\x05\x06" + bytes(18), "packed in it"),
        (b"\x89HDF\r\n\x1a\n", "no whole HDF5 file"),
        (b"\x80\x02", "incomplete or damaged"),
    ],
)
def test_other_files(content, word, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=word) as refusal:
        read_checkpoint(path)
    assert str(refusal.value).startswith(f"{path}: ")


def test_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="it is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("path", ["/dev/null", "pipe"])
def test_no_file(path, tmp_path):
    """Opening a pipe would wait for somebody to write into it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="it is a device or a pipe"):
        read_checkpoint(tmp_path / path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="weights"):
        read_checkpoint(tmp_path / "weights")


def test_a_part_of_what_has_none(tmp_path):
    write_safetensors(tmp_path / "a", {"a": np.ones(2)})
    with pytest.raises(CheckpointError, match="has no parts"):
        read_checkpoint(tmp_path / "a", part="model")


def test_a_checkpoint_is_a_mapping_that_cannot_change(tmp_path):
    write_safetensors(tmp_path / "a", {"a": np.ones(2)})
    checkpoint = read_checkpoint(str(tmp_path / "a"))
    assert dict(checkpoint).keys() == {"a"}
    assert "1 tensors" in repr(checkpoint)
    with pytest.raises(TypeError):
        checkpoint["a"] = None
    with pytest.raises(AttributeError):
        checkpoint["a"].shape = ()
