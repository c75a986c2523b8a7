"""Data sets of scripts: numbers of classes and images, and what loading refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvision.compat import matterport as utils
from kvision.compat.matterport.instances import (
    check_dataset,
    checked_image,
    checked_masks,
)
from tests.compat.small import Squares


def test_numbers_and_names() -> None:
    dataset = utils.Dataset()
    dataset.add_class("coco", 7, "train, railway")
    dataset.add_class("coco", 3, "car")
    dataset.add_class("coco", 7, "train, railway")
    dataset.add_image("coco", image_id="a", path="a.jpg", height=5)
    dataset.add_image("coco", image_id=12, path="b.jpg")
    dataset.prepare()
    assert dataset.num_classes == 3
    assert dataset.class_names == ["BG", "train", "car"]
    assert dataset.class_ids.tolist() == [0, 1, 2]
    assert dataset.image_ids.tolist() == [0, 1]
    assert dataset.num_images == 2
    assert dataset.image_info[0]["height"] == 5
    assert dataset.map_source_class_id("coco.3") == 2
    assert dataset.get_source_class_id(1, "coco") == 7
    assert dataset.image_from_source_map["coco.12"] == 1
    assert dataset.source_class_ids == {"": [0], "coco": [0, 1, 2]}
    assert dataset.source_image_link(1) == "b.jpg"
    assert dataset.image_reference(1) == ""
    with pytest.raises(ValueError, match=r"Class 1 \('train, railway'\) is of 'coco'"):
        dataset.get_source_class_id(1, "nyu")


def test_faults_of_classes() -> None:
    dataset = utils.Dataset()
    with pytest.raises(ValueError, match="no dot"):
        dataset.add_class("a.b", 1, "c")
    dataset.add_class("a", 1, "c")
    with pytest.raises(ValueError, match="Class 1 of 'a' is 'c' already"):
        dataset.add_class("a", 1, "d")
    with pytest.raises(ValueError, match="class_map is not supported"):
        dataset.prepare(class_map={})  # type: ignore[arg-type]


def test_image_from_a_file(tmp_path: Path) -> None:
    Image.new("L", (5, 4), 77).save(tmp_path / "grey.png")
    dataset = utils.Dataset()
    dataset.add_image("a", 1, path=tmp_path / "grey.png")
    dataset.add_image("a", 2, path=tmp_path / "none.png")
    dataset.prepare()
    image = dataset.load_image(0)
    assert image.shape == (4, 5, 3)
    assert (image == 77).all()
    masks, class_ids = dataset.load_mask(0)
    assert masks.shape == (0, 0, 0)
    assert len(class_ids) == 0
    with pytest.raises(ValueError, match=r"none\.png.*no such file"):
        dataset.load_image(1)


class Given(Squares):
    """Loads what it is given."""

    image: Any = np.full((4, 6, 3), 9, np.uint8)
    loaded: Any = (np.ones((4, 6, 2), bool), np.array([1, 2]))

    def load_image(self, image_id: int) -> Any:
        return self.image

    def load_mask(self, image_id: int) -> Any:
        return self.loaded


def given(**values: Any) -> Given:
    dataset = Given().fill(1)
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    "image",
    [
        np.full((4, 6, 3), 200, np.int64),
        np.full((4, 6, 3), 200.4),
        np.zeros((4, 6, 3)),
        np.full((4, 6, 3), 1),
    ],
)
def test_images_of_other_types(image: np.ndarray) -> None:
    loaded = checked_image(given(image=image), 0)
    assert loaded.dtype == np.uint8
    np.testing.assert_allclose(loaded, image, atol=0.5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 6)), r"\(height, width, 3\) array. Received: shape \(4, 6\)"),
        (np.zeros((4, 6, 4)), r"Received: shape \(4, 6, 4\)"),
        (np.zeros((0, 6, 3)), r"Received: shape \(0, 6, 3\)"),
        (None, r"Received: shape \(\)"),
        (np.full((4, 6, 3), 256), "from 0 to 255. Received: int64 from 256 to 256"),
        (np.full((4, 6, 3), -1.0), "Received: float64 from -1.0"),
        (np.full((4, 6, 3), np.nan), "Received: float64 from nan"),
        (np.full((4, 6, 3), 0.5), "from 0 to 255. Received: float64 from 0.5 to 0.5"),
        (np.full((4, 6, 3), "a"), "from 0 to 255. Received: <U1"),
    ],
)
def test_images_that_are_refused(image: Any, message: str) -> None:
    with pytest.raises(
        ValueError, match=rf"image 0 \(toys.0\) must return .*{message}"
    ):
        checked_image(given(image=image), 0)


@pytest.mark.parametrize(
    "masks",
    [
        np.ones((4, 6, 2), bool),
        np.full((4, 6, 2), 255, np.uint8),
        np.ones((4, 6, 2), np.float64),
    ],
)
def test_masks_of_other_types(masks: np.ndarray) -> None:
    loaded, class_ids = checked_masks(given(loaded=[masks, [1, -2]]), 0, (4, 6))
    assert loaded.dtype == bool
    assert loaded.all()
    assert class_ids.tolist() == [1, -2]


@pytest.mark.parametrize("empty", [np.empty((0, 0, 0)), np.zeros((4, 6, 0))])
def test_no_objects(empty: np.ndarray) -> None:
    masks, class_ids = checked_masks(given(loaded=(empty, [])), 0, (4, 6))
    assert masks.shape == (4, 6, 0)
    assert class_ids.shape == (0,)
    assert class_ids.dtype == np.int32


MASKS, IDS = np.ones((4, 6, 2), bool), np.array([1, 2])


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (MASKS, r"\(masks, class_ids\). Received: a ndarray"),
        ((MASKS.transpose(2, 0, 1), IDS), r"= \(4, 6, 2\).*shape \(2, 4, 6\)"),
        ((MASKS, np.array([1])), r"= \(4, 6, 1\), for .* 1 class ids.*\(4, 6, 2\)"),
        ((MASKS[:3], IDS), r"Received: shape \(3, 6, 2\)"),
        ((MASKS * 0.5, IDS), "bool masks .*Received: float64 with other values"),
        ((MASKS.astype(str), IDS), "bool masks .*Received: <U5"),
        ((MASKS, IDS[None]), r"one-dimensional .*shape \(1, 2\)"),
        ((MASKS, IDS * 0.5), "whole numbers. Received: .*float64"),
        ((MASKS, np.array([1, 3])), r"from 1 to 2 .*Received: \[3\]"),
        ((MASKS, np.array([0, 2])), r"0 is the background.*Received: \[0\]"),
        ((MASKS, np.array([-3, 2])), r"Received: \[-3\]"),
    ],
)
def test_masks_that_are_refused(loaded: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"load_mask of image 0 .*{message}"):
        checked_masks(given(loaded=loaded), 0, (4, 6))


def test_data_sets_that_are_refused() -> None:
    check_dataset(Squares().fill(1), 3, "train_dataset")
    with pytest.raises(ValueError, match=r"has 3 classes \(\['BG', 'square', 'bar'\]"):
        check_dataset(Squares().fill(1), 2, "train_dataset")
    with pytest.raises(ValueError, match="train_dataset has 0 images, 0 of them prep"):
        check_dataset(Squares(), 3, "train_dataset")
    with pytest.raises(ValueError, match=r"val_dataset must be an object .*a list"):
        check_dataset([], 3, "val_dataset")
    unprepared = Squares().fill(2)
    unprepared.add_image("toys", 5, None)
    with pytest.raises(ValueError, match="3 images, 2 of them prepared"):
        check_dataset(unprepared, 3, "train_dataset")
    mixed = Squares()
    mixed.add_image("nyu", 5, None)
    mixed.fill(2)
    with pytest.raises(ValueError, match=r"several sources: \['nyu', 'toys'\]"):
        check_dataset(mixed, 3, "train_dataset")
