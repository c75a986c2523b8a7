"""Folders, tables and arrays of labelled images; order, resuming, errors."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kvision.data import MixUp, RandomResizedCrop, arrays, find_splits, folders
from kvision.data.splits import split_labelled

OPTIONS: dict[str, Any] = {"image_size": (16, 16), "batch_size": 4}


def classes(root: Path, counts: dict[str, int], shift: int = 0) -> Path:
    """Image i of a class is of the grey value 10 * i, class by class another."""
    for offset, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            value = np.full((20, 24, 3), 10 * number + offset + shift, np.uint8)
            Image.fromarray(value).save(root / name / f"{number}.png")
    return root


def batches(dataset: Any, number: int | None = None) -> list[tuple]:
    return [(x.numpy(), y.numpy()) for x, y in itertools.islice(dataset, number)]


def same(first: list[tuple], second: list[tuple]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a, b) and np.array_equal(c, d)
        for (a, c), (b, d) in zip(first, second, strict=True)
    )


def test_contract(tmp_path: Path) -> None:
    data = folders(classes(tmp_path, {"dog": 3, "cat": 2}), **OPTIONS)
    assert data.class_names == ["cat", "dog"]
    assert (data.num_images, data.steps_per_epoch, len(data)) == (5, 2, 2)
    assert data.class_counts == [2, 3]
    images, labels = data.element_spec
    assert (images.shape.as_list(), images.dtype) == ([None, 16, 16, 3], tf.uint8)
    assert (labels.shape.as_list(), labels.dtype) == ([None], tf.int32)
    content = batches(data)
    np.testing.assert_array_equal(content[0][1], [0, 0, 1, 1])
    np.testing.assert_array_equal(content[0][0][:, 0, 0, 0], [1, 11, 0, 10])


def test_resumed_within_an_epoch(tmp_path: Path) -> None:
    root = classes(tmp_path, {"a": 6, "b": 6})
    augment = [RandomResizedCrop(), MixUp()]
    options = {**OPTIONS, "augment": augment, "seed": 3, "label_smoothing": 0.1}
    endless = batches(folders(root, **options, first_epoch=0), 6)
    resumed = batches(folders(root, **options, first_epoch=1, first_step=2), 1)
    assert same(resumed, endless[5:6])
    finite = folders(root, **options)
    assert same(batches(finite), endless[:3])
    assert same(batches(finite), endless[3:])
    images, labels = endless[0]
    assert (images.dtype, labels.shape) == (np.float32, (4, 2))
    np.testing.assert_allclose(labels.sum(1), 1.0, rtol=1e-6)


def test_repeats(tmp_path: Path) -> None:
    root = classes(tmp_path, {"a": 6, "b": 6})
    data = folders(root, **OPTIONS, shuffle=True, repeats=3)
    assert data.steps_per_epoch == 3
    values = np.concatenate([images[:, 0, 0, 0] for images, _ in batches(data)])
    assert (values.reshape(4, 3) == values[::3, None]).all()
    assert len(set(values)) == 4


def test_split_is_stratified_and_stable(tmp_path: Path) -> None:
    root = classes(tmp_path, {"a": 10, "b": 20})
    halves = [
        folders(root, **OPTIONS, validation_split=0.2, subset=subset)
        for subset in ("training", "validation")
    ]
    assert [half.class_counts for half in halves] == [[8, 16], [2, 4]]
    assert not set(halves[0].image_names) & set(halves[1].image_names)
    again = folders(root, **OPTIONS, validation_split=0.2, subset="validation")
    assert again.image_names == halves[1].image_names
    names, labels = [str(i) for i in range(50)], np.zeros(50, int)
    chosen = split_labelled(names, labels, 0.2)
    more = split_labelled([*names, "new"], np.zeros(51, int), 0.2)
    assert (chosen != more[:50]).sum() <= 1


def test_sets_and_tables(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        classes(tmp_path / name, {"a": 2, "b": 2}, shift=len(name))
    assert list(find_splits(tmp_path)) == ["train", "val"]
    assert folders(tmp_path, **OPTIONS, split="val").num_images == 4
    with pytest.raises(ValueError, match="holds the sets train, val, not classes"):
        folders(tmp_path, **OPTIONS)
    table = tmp_path / "t.csv"
    rows = "Image;Label;split\ntrain/b/0.png;10;train\ntrain/a/1.png;9;train\n"
    table.write_text(rows + "valid/a/1.png;9;val\n")
    data = folders(table, **OPTIONS, split="train")
    assert data.class_names == ["9", "10"]
    np.testing.assert_array_equal(batches(data)[0][1], [1, 0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("name,label\na,b\n", "none of its columns .* Name the column by file_column="),
        ("file,label\na/0.png,dgo\n", "'dgo' is not among .* Did you mean 'dog'"),
        ("file,label\na/9.png,dog\n", "no such file"),
        ("file,label\na/0.png,dog\na/0.png,cat\n", "'cat' here and 'dog' in line 2"),
        ("file,label\na/0.png,\n", "line 2: column 'label' is empty"),
        ("file,label\na/0.png\n", "1 values, the header names 2"),
    ],
)
def test_faults_of_tables(tmp_path: Path, rows: str, message: str) -> None:
    classes(tmp_path, {"a": 1})
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(ValueError, match=message):
        folders(tmp_path / "t.csv", **OPTIONS, class_names=["dog", "cat"])


def test_faults_of_folders(tmp_path: Path, caplog: Any) -> None:
    root = classes(tmp_path / "x", {"a": 4, "b": 4})
    (root / "a" / "broken.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"broken\.png: the file is empty"):
        folders(root, **OPTIONS)
    assert folders(root, **OPTIONS, on_error="skip").num_images == 8
    assert "1 left out for errors" in caplog.text
    (root / "a" / "broken.png").unlink()
    (root / "c").mkdir()
    with pytest.raises(ValueError, match="no images of these classes: 'c'"):
        folders(root, **OPTIONS)
    with pytest.raises(ValueError, match=r"no folder 'bb'. Did you mean 'b'"):
        folders(root, **OPTIONS, class_names=["a", "bb"])
    with pytest.raises(ValueError, match="only one class"):
        folders(root, **OPTIONS, class_names=["a"])
    with pytest.raises(ValueError, match="No such file or folder"):
        folders(root / "nowhere", **OPTIONS)
    # Every image of b once more: some of them are on the other side of the split.
    for number in range(4):
        content = (root / "b" / f"{number}.png").read_bytes()
        for copy in range(3):
            (root / "b" / f"copy{number}{copy}.png").write_bytes(content)
    part = {"class_names": ["a", "b"], "validation_split": 0.5, "subset": "training"}
    with pytest.raises(ValueError, match="for validation, but the same picture as"):
        folders(root, **OPTIONS, **part)


@pytest.mark.parametrize("form", ["folder", "table"])
def test_a_test_set_may_lack_a_class(tmp_path: Path, caplog: Any, form: str) -> None:
    source = root = classes(tmp_path / "x", {"a": 2, "d": 1})
    (root / "b").mkdir()
    if form == "table":
        source = root / "t.csv"
        source.write_text("file,label\na/0.png,a\na/1.png,a\nd/0.png,d\n")
    names = ["a", "b", "ccc", "d"]
    data = folders(source, **OPTIONS, class_names=names)
    assert data.class_counts == [2, 0, 0, 1]
    np.testing.assert_array_equal(batches(data)[0][1], [0, 0, 3])
    assert "no images of these classes: 'b', 'ccc'" in caplog.text
    for training in ({"shuffle": True}, {"augment": "light"}, {"first_epoch": 0}):
        with pytest.raises(ValueError, match="no images of these classes: 'b', 'ccc'"):
            folders(source, **OPTIONS, class_names=names, **training)
    with pytest.raises(ValueError, match="no images are left"):
        folders(root, **OPTIONS, class_names=["b", "ccc"])


def test_arrays() -> None:
    grey = np.arange(6 * 64, dtype=np.int64).reshape(6, 8, 8) % 256
    labels = np.array([[0], [1], [0], [1], [2], [2]])
    options = {"image_size": (8, 8), "batch_size": 6}
    ((images, numbers),) = batches(arrays(grey, labels, **options))
    np.testing.assert_array_equal(images, np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(numbers, labels[:, 0])
    for bad, message in (
        ((grey / 255.0, labels), "look like 0..1. Multiply them by 255"),
        ((grey + 1, labels), "values from 1 to 256"),
        ((grey[0], labels), "shape=.8, 8."),
        ((grey, labels[:3]), "one for each image"),
        ((grey, labels / 2), "whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            arrays(*bad, **options)
    with pytest.raises(ValueError, match="2 for image 4, and 1 more"):
        arrays(grey, labels, **options, class_names=["a", "b"])


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train_images=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="no arrays val_images and val_labels"):
        arrays(tmp_path / "x.npz", split="val", **OPTIONS)


def test_pneumonia(shared_data: Path) -> None:
    (path,) = (shared_data / "pneumoniamnist").glob("*.npz")
    sizes = {"train": 2428, "val": 270, "test": 468}
    for split, size in sizes.items():
        data = arrays(path, split=split, image_size=(28, 28), batch_size=64, channels=1)
        assert data.num_images == size
        assert data.class_names == ["0", "1"]
        assert data.element_spec[0].shape.as_list() == [None, 28, 28, 1]
