"""Generated shapes: fixed by seed, exact, within what was asked for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from kvision.data import coco, load_image, shapes, shapes_coco
from kvision.data.check import check
from kvision.data.shapes import CLASS_NAMES, _Artist, _iou
from kvision.ops.masks import paste_masks


def artist(**options: Any) -> _Artist:
    settings = {
        "seed": 0,
        "image_size": (128, 128),
        "counts": (1, 8),
        "sizes": (10, 60),
        "max_iou": 0.5,
        **options,
    }
    return _Artist(**settings)


def test_fixed_by_seed() -> None:
    """These pictures are part of the demo's numbers: they must not change."""
    pictures = [artist().place(index) for index in range(50)]
    counts = [len(picture.labels) for picture in pictures]
    assert counts[:10] == [7, 5, 8, 5, 4, 6, 4, 7, 3, 3]
    assert sum(counts) == 235
    area = sum(int(picture.masks.sum()) for picture in pictures)
    assert abs(area - 202093) < 100  # edges may differ by a rounding of cos
    image = artist().paint(0, pictures[0])
    assert abs(int(image.sum(dtype=np.int64)) - 5476718) < 3000


def test_what_was_asked_for() -> None:
    for index in range(40):
        picture = artist().place(index)
        assert 1 <= len(picture.labels) <= 8
        assert picture.masks.sum(axis=0).max() == 1  # each pixel is of one shape
        for mask, box in zip(picture.masks, picture.boxes, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_array_equal(box, expected)
            assert max(box[2:] - box[:2]) <= 61
        for a in range(len(picture.boxes)):
            for b in range(a):
                assert _iou(picture.boxes[a], picture.boxes[b]) <= 0.75


def test_all_classes_and_overlaps_occur() -> None:
    pictures = [artist().place(index) for index in range(40)]
    labels = np.concatenate([picture.labels for picture in pictures])
    assert (np.bincount(labels) > 30).all()
    overlapping = [
        _iou(p.boxes[a], p.boxes[b]) > 0.1
        for p in pictures
        for a in range(len(p.boxes))
        for b in range(a)
    ]
    assert sum(overlapping) > 10


def test_one_size_of_one_shape() -> None:
    picture = artist(counts=(1, 1), sizes=(40, 40)).place(3)
    sides = picture.boxes[0, 2:] - picture.boxes[0, :2]
    np.testing.assert_allclose(sides, 40, atol=1)


def test_dataset() -> None:
    dataset = shapes(6, image_size=(64, 96), batch_size=6, max_size=40, seed=1)
    assert dataset.class_names == list(CLASS_NAMES)
    images, targets = next(iter(dataset))
    assert images.shape == (6, 64, 96, 3)
    assert targets["gt_boxes"].shape == (6, 8, 4)
    annotations = dataset.annotations["annotations"]
    used = targets["gt_labels"].numpy() >= 0
    assert used.sum() == len(annotations)
    boxes = targets["gt_boxes"].numpy()[used]
    expected = np.array([a["bbox"] for a in annotations], np.float32)
    expected[:, 2:] += expected[:, :2]
    np.testing.assert_allclose(boxes, expected, atol=1e-4)
    grids = targets["gt_masks"].numpy()[used].astype(np.float32) / 255
    pasted = np.asarray(paste_masks(grids, boxes, (64, 96))) >= 0.5
    for mask, annotation in zip(pasted, annotations, strict=True):
        exact = coco_mask.decode(annotation["segmentation"]).astype(bool)
        assert (mask & exact).sum() / (mask | exact).sum() > 0.97
        assert annotation["area"] == exact.sum()


def test_seeds() -> None:
    def first(**options: Any) -> np.ndarray:
        images, _ = next(iter(shapes(2, image_size=(32, 32), max_size=20, **options)))
        return images.numpy()

    np.testing.assert_array_equal(first(seed=1), first(seed=1))
    assert (first(seed=1) != first(seed=2)).any()
    np.testing.assert_array_equal(first(seed=1), first(seed=2, data_seed=1))


def test_coco_folder(tmp_path: Path) -> None:
    path, images = shapes_coco(tmp_path, 3, name="val", image_size=(48, 64), seed=2)
    assert path == tmp_path / "val.json"
    report = check(tmp_path)
    assert report.num_errors == report.num_warnings == 0
    written = coco(path, images, image_size=(48, 64), batch_size=3)
    made = shapes(3, image_size=(48, 64), batch_size=3, seed=2)
    (a, from_files), (b, from_memory) = next(iter(written)), next(iter(made))
    np.testing.assert_array_equal(a, b)
    count = written.max_instances
    for name in ("gt_boxes", "gt_labels", "gt_masks"):
        np.testing.assert_allclose(
            from_files[name], from_memory[name][:, :count], atol=1, err_msg=name
        )
    content = json.loads(path.read_text())
    assert load_image(images / content["images"][0]["file_name"]).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 0}, "num_images=0"),
        ({"min_shapes": 5, "max_shapes": 4}, "min_shapes=5, max_shapes=4"),
        ({"min_size": 50, "max_size": 40}, "min_size=50, max_size=40"),
        ({"min_size": 50, "image_size": (40, 90)}, r"does not fit .* \(40, 90\)"),
    ],
)
def test_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shapes(**options)
