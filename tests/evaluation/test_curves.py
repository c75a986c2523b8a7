"""Precision-recall curves and the confusion matrix, by hand."""

import numpy as np
import pytest

from kvision.evaluation import confusion_matrix, pr_curves


def truth(*items, classes=("cat", "dog")):
    return {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 10 + k, "name": name} for k, name in enumerate(classes)],
        "annotations": [
            {"image_id": 1, "category_id": 10 + label, "bbox": box, "iscrowd": crowd}
            for label, box, crowd in items
        ],
    }


def found(*items):
    return [
        {"image_id": 1, "category_id": 10 + label, "bbox": box, "score": score}
        for label, box, score in items
    ]


A, B, C, D = [0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10], [60, 0, 10, 10]


def test_the_curve_by_hand():
    objects = truth((0, A, 0), (0, B, 0))
    results = found((0, A, 0.9), (0, C, 0.8), (0, [20, 0, 10, 7], 0.7))
    curves = pr_curves(objects, results)
    assert list(curves.precision) == ["cat"]  # there is no dog
    half, three_quarters = curves.precision["cat"]
    assert half[curves.recall <= 0.5] == pytest.approx(1)
    assert half[curves.recall > 0.5] == pytest.approx(2 / 3)
    assert three_quarters[curves.recall > 0.5] == pytest.approx(0)  # its IoU is 0.7
    assert curves.scores["cat"][0, [0, -1]] == pytest.approx([0.9, 0.7])


def test_only_cocos_thresholds_have_curves():
    with pytest.raises(ValueError, match=r"must be some of \[0\.5, .*Received 0\.3"):
        pr_curves(truth((0, A, 0)), [], iou_thresholds=[0.3])


def test_confusion_by_hand():
    objects = truth((0, A, 0), (0, B, 0), (1, C, 0), (1, D, 1))
    results = found(
        (0, A, 0.9),  # right
        (1, A, 0.8),  # the object is taken: found where nothing is
        (1, B, 0.7),  # a cat taken for a dog
        (0, D, 0.9),  # in a crowd: not counted
        (1, C, 0.4),  # below the score threshold: the dog is missed
    )
    matrix = confusion_matrix(objects, results)
    assert matrix.class_names == ["cat", "dog", "background"]
    np.testing.assert_array_equal(matrix.counts, [[1, 1, 0], [0, 0, 1], [0, 1, 0]])
    lower = confusion_matrix(objects, results, score_threshold=0.3)
    np.testing.assert_array_equal(lower.counts, [[1, 1, 0], [0, 1, 0], [0, 1, 0]])


def test_the_largest_overlap_goes_first():
    objects = truth((0, A, 0), (1, [4, 0, 10, 10], 0))
    results = found((1, [3, 0, 10, 10], 0.6), (0, [1, 0, 10, 10], 0.9))
    counts = confusion_matrix(objects, results, iou_threshold=0.3).counts
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_confusion_of_some_classes_and_images():
    objects = truth((0, A, 0), (1, C, 0))
    results = found((0, A, 0.9), (1, C, 0.9))
    some = confusion_matrix(objects, results, class_names=["dog"])
    np.testing.assert_array_equal(some.counts, [[1, 0], [0, 0]])
    none = confusion_matrix(objects, results, image_ids=[])
    assert none.counts.sum() == 0
