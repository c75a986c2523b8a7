"""Model outputs -> COCO results in original pixels."""

import json

import numpy as np
import pytest

from kvision import evaluation
from kvision.evaluation.masks import decode, paste


def batch():
    """Two images of 100 x 200 and 60 x 30 on a padded input of 64 x 128."""
    outputs = {
        "boxes": np.array(
            [
                [[8, 4, 24, 20], [120, 60, 130, 70], [0, 0, 0, 0]],
                [[0, 0, 16, 32], [70, 0, 90, 9], [0, 0, 0, 0]],
            ],
            np.float32,
        ),
        "scores": np.array([[0.9, 0.5, 0], [0.75, 0.25, 0]], np.float32),
        "labels": np.array([[1, 0, -1], [0, 0, -1]], np.int32),
        "num_detections": np.array([2, 2], np.int32),
        "masks": np.ones((2, 3, 28, 28), np.float32),
    }
    targets = {
        "image_ids": np.array([11, 12]),
        "scales": np.array([[0.64, 0.64], [1.0, 2.0]], np.float32),
        "original_sizes": np.array([[100, 200], [60, 30]], np.int32),
    }
    return outputs, targets


def test_boxes_go_back_to_original_pixels_and_are_cut():
    results = evaluation.coco_results(*batch(), category_ids=[3, 7], masks=False)
    assert [r["image_id"] for r in results] == [11, 11, 12]
    assert [r["category_id"] for r in results] == [7, 3, 3]
    assert [r["score"] for r in results] == [pytest.approx(s) for s in (0.9, 0.5, 0.75)]
    expected = [
        [12.5, 6.25, 25, 25],
        [187.5, 93.75, 12.5, 6.25],  # cut at 200 x 100
        [0, 0, 8, 32],  # y by 1, x by 2; the box right of the photo is in the padding
    ]
    np.testing.assert_allclose([r["bbox"] for r in results], expected, rtol=1e-6)


def test_masks_stay_on_the_box_that_was_not_cut():
    outputs, targets = batch()
    outputs["masks"][0, 1, :, 14:] = 0  # the left half: x 187.5 ... 195.3
    results = evaluation.coco_results(outputs, targets, category_ids=[3, 7])
    mask = decode(results[1]["segmentation"])
    assert mask.shape == (100, 200)
    assert mask[95, 188:195].all()
    assert not mask[:, 196:].any()
    whole = np.array([[120, 60, 130, 70]]) / 0.64
    np.testing.assert_array_equal(
        mask, paste(outputs["masks"][0, 1:2], whole, (100, 200))[0]
    )


def test_results_are_plain_json():
    results = evaluation.coco_results(*batch(), category_ids=[3, 7])
    assert json.loads(json.dumps(results)) == results


def test_an_image_without_detections_gives_no_results():
    outputs, targets = batch()
    outputs["labels"][:] = -1
    assert evaluation.coco_results(outputs, targets, [3, 7]) == []


def test_masks_need_a_model_with_masks():
    outputs, targets = batch()
    del outputs["masks"]
    with pytest.raises(ValueError, match="masks=True needs a model with masks"):
        evaluation.coco_results(outputs, targets, [3, 7])


def test_every_label_needs_a_category():
    with pytest.raises(ValueError, match=r"Label 1 has no category: .* has 1 entries"):
        evaluation.coco_results(*batch(), category_ids=[3], masks=False)


def test_ground_truth_leaves_crowds_out():
    truth = {
        "images": [{"id": 1, "height": 10, "width": 10}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1},
        ],
    }
    assert evaluation.ground_truth_results(truth, masks=False) == [
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1.0}
    ]
