"""AP of a model on data: that of its own detections is 1, of others less."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kvision.export.precision import average_precision, image_batches

SIZE = (40, 60)
MODEL = SimpleNamespace(class_names=["a", "b"], image_size=SIZE, max_detections=3)


def data(num_images: int = 5, batch: int = 2) -> list[tuple[np.ndarray, dict]]:
    """Images whose first pixel is their number; three objects and a row of padding."""
    images = np.zeros((num_images, *SIZE, 3), np.float32)
    images[:, 0, 0, 0] = np.arange(num_images)
    boxes = np.array([[2, 3, 20, 19], [25, 5, 50, 30], [5, 22, 24, 38], [0] * 4])
    targets = {
        "gt_boxes": np.tile(boxes.astype(np.float32), (num_images, 1, 1)),
        "gt_labels": np.tile([0, 1, 1, -1], (num_images, 1)),
        "gt_masks": np.full((num_images, 4, 14, 14), 255, np.uint8),
    }
    return [
        (images[i : i + batch], {k: v[i : i + batch] for k, v in targets.items()})
        for i in range(0, num_images, batch)
    ]


def outputs(images: np.ndarray, masks: bool = True) -> dict[str, np.ndarray]:
    """Exactly the objects of `data`."""
    ((_, targets),) = data(len(images), len(images))
    found = {
        "boxes": targets["gt_boxes"][:, :3],
        "labels": targets["gt_labels"][:, :3],
        "scores": np.tile([0.9, 0.8, 0.7], (len(images), 1)),
        "masks": np.ones((len(images), 3, 28, 28), np.float32),
    }
    return found if masks else {k: v for k, v in found.items() if k != "masks"}


def test_perfect_detections() -> None:
    found = average_precision(MODEL, outputs, data(), 200)
    assert found == pytest.approx({"box_ap": 1.0, "mask_ap": 1.0})


def test_a_class_that_is_never_found_costs_half() -> None:
    def without_a(images: np.ndarray) -> dict[str, np.ndarray]:
        found = outputs(images)
        return {**found, "labels": np.where(found["labels"] == 0, -1, found["labels"])}

    found = average_precision(MODEL, without_a, data(), 200)
    assert found == pytest.approx({"box_ap": 0.5, "mask_ap": 0.5})


def test_boxes_and_masks_count_apart() -> None:
    def upper_parts(images: np.ndarray) -> dict[str, np.ndarray]:
        found = outputs(images)
        found["masks"][:, :, 12:] = 0
        return found

    found = average_precision(MODEL, upper_parts, data(), 200)
    assert found["box_ap"] == pytest.approx(1.0)
    assert found["mask_ap"] == 0  # an IoU below 0.5


def test_masks_need_both_sides() -> None:
    boxes_only = average_precision(MODEL, lambda i: outputs(i, masks=False), data(), 9)
    assert boxes_only == pytest.approx({"box_ap": 1.0})
    bare = [(i, {k: v for k, v in t.items() if k != "gt_masks"}) for i, t in data()]
    assert average_precision(MODEL, outputs, bare, 9) == pytest.approx({"box_ap": 1.0})


def test_only_so_many_images_count() -> None:
    seen: list[int] = []

    def fails_later(images: np.ndarray) -> dict[str, np.ndarray]:
        seen.extend(images[:, 0, 0, 0].tolist())
        found = outputs(images)
        is_late = images[:, 0, 0, 0] >= 3
        return {**found, "labels": np.where(is_late[:, None], -1, found["labels"])}

    found = average_precision(MODEL, fails_later, data(), 3)
    assert found["box_ap"] == pytest.approx(1.0)
    assert seen == [0, 1, 2]
    assert average_precision(MODEL, fails_later, data(), 5)["box_ap"] < 0.7


def test_without_objects_there_is_no_ap() -> None:
    empty = [
        (images, {**targets, "gt_labels": np.full_like(targets["gt_labels"], -1)})
        for images, targets in data()
    ]
    assert average_precision(MODEL, outputs, empty, 9) == {"box_ap": -1, "mask_ap": -1}


def test_batches_become_bytes() -> None:
    floats = np.array([-3.0, 0.4, 0.6, 254.6, 300.0]).reshape(1, 1, 5, 1)
    ((images, targets),) = image_batches([floats], 10)
    assert images.ravel().tolist() == [0, 0, 1, 255, 255]
    assert images.dtype == np.uint8
    assert targets == {}


def test_images_without_batches_are_refused() -> None:
    unbatched: Any = [(np.zeros((4, 4, 3)), {})]
    with pytest.raises(ValueError, match=r"batches .*shape \(4, 4, 3\)"):
        next(image_batches(unbatched, 1))
