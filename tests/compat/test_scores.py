"""Boxes and average precision, by hand and against a slow second implementation."""

import numpy as np
import pytest

from kvision.compat import matterport as utils


def masks_of(boxes: list[list[int]], size: tuple[int, int] = (20, 30)) -> np.ndarray:
    masks = np.zeros((*size, len(boxes)), bool)
    for number, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, number] = True
    return masks


def test_extents_of_masks() -> None:
    boxes = [[2, 3, 9, 4], [0, 0, 20, 30], [0, 0, 0, 0], [19, 29, 20, 30]]
    found = utils.extract_bboxes(masks_of(boxes))
    assert found.dtype == np.int32
    assert found.tolist() == boxes
    assert utils.extract_bboxes(np.zeros((4, 4, 0), bool)).shape == (0, 4)


def test_overlaps_of_boxes_are_those_of_their_masks() -> None:
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 12, (9, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 9, (9, 2))], axis=1)
    boxes = np.concatenate([boxes, [[0, 0, 0, 0]]])
    overlaps = utils.compute_overlaps(boxes, boxes[:4])
    masks = masks_of(boxes.tolist())
    expected = utils.compute_overlaps_masks(masks, masks[..., :4])
    np.testing.assert_allclose(overlaps, expected, atol=1e-6)
    shared = masks[..., 0] & masks[..., 1]
    either = masks[..., 0] | masks[..., 1]
    assert overlaps[0, 1] == pytest.approx(shared.sum() / either.sum())


def test_suppression() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 1, 10, 11], [0, 20, 10, 30], [0, 2, 10, 12]])
    scores = np.array([0.3, 0.9, 0.1, 0.5])
    assert utils.non_max_suppression(boxes, scores, 0.3).tolist() == [1, 2]
    # 0 and 3 overlap by 2/3, each with 1 by 9/11.
    assert utils.non_max_suppression(boxes, scores, 0.7).tolist() == [1, 2]
    assert utils.non_max_suppression(boxes, scores, 0.82).tolist() == [1, 3, 0, 2]
    with pytest.raises(ValueError, match="at least one box"):
        utils.non_max_suppression(boxes[:0], scores[:0], 0.5)


TRUTH = [[0, 0, 10, 10], [0, 15, 10, 25], [12, 0, 20, 8]]
FOUND = [
    [12, 0, 20, 8],  # right
    [0, 1, 10, 11],  # right, IoU 9/11
    [0, 0, 10, 10],  # the same object again
    [0, 15, 10, 25],  # the class is wrong
]


def average_precision(
    scores: list[float], labels: list[int], iou_threshold: float = 0.5
) -> utils.scores.AveragePrecision:
    return utils.compute_ap(
        np.array([*TRUTH, [0, 0, 0, 0]]),
        np.array([1, 1, 2, 0]),
        masks_of([*TRUTH, [0, 0, 0, 0]]),
        np.array(FOUND),
        np.array(labels),
        np.array(scores),
        masks_of(FOUND),
        iou_threshold,
    )


def test_average_precision_by_hand() -> None:
    ap, precisions, recalls, overlaps = average_precision(
        [0.9, 0.8, 0.7, 0.6], [2, 1, 1, 2]
    )
    # Hits: yes, yes, no, no. Recall 1/3 and 2/3 at precision 1.
    assert ap == pytest.approx(2 / 3)
    np.testing.assert_allclose(recalls, [0, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 1])
    np.testing.assert_allclose(precisions, [1, 1, 1, 2 / 3, 0.5, 0])
    assert overlaps.shape == (4, 3)


def test_scores_decide_who_comes_first() -> None:
    # The exact box of the first object comes first, so the shifted one misses.
    ap, precisions, _, _ = average_precision([0.1, 0.8, 0.9, 0.95], [2, 1, 1, 2])
    # Hits: no (wrong class), yes, no, yes.
    np.testing.assert_allclose(precisions, [0.5, 0.5, 0.5, 0.5, 0.5, 0])
    assert ap == pytest.approx((1 / 3) * 0.5 + (1 / 3) * 0.5)


def test_the_best_prediction_keeps_its_object() -> None:
    """In matterport's code the first prediction's object could be matched again."""
    found = utils.compute_matches(
        np.array(TRUTH[:1]),
        np.array([1]),
        masks_of(TRUTH[:1]),
        np.array(FOUND[1:3]),
        np.array([1, 1]),
        np.array([0.9, 0.8]),
        masks_of(FOUND[1:3]),
    )
    assert found.gt_match.tolist() == [0]
    assert found.pred_match.tolist() == [0, -1]


def test_threshold_of_overlap() -> None:
    assert average_precision([0.9, 0.8, 0.7, 0.6], [2, 1, 1, 2], 0.85).ap < 2 / 3


def test_nothing_found_or_nothing_there() -> None:
    nothing = np.zeros((0, 4)), np.zeros(0, int), masks_of([])
    truth = np.array(TRUTH), np.array([1, 1, 2]), masks_of(TRUTH)
    boxes, class_ids, masks = nothing
    assert utils.compute_ap(*truth, boxes, class_ids, np.zeros(0), masks).ap == 0
    boxes, class_ids, masks = truth
    assert utils.compute_ap(*nothing, boxes, class_ids, np.ones(3), masks).ap == 0


def test_mean_over_thresholds(capsys: pytest.CaptureFixture[str]) -> None:
    truth = np.array(TRUTH), np.array([1, 1, 2]), masks_of(TRUTH)
    found = np.array(FOUND), np.array([2, 1, 1, 2])
    found = (*found, np.array([0.9, 0.8, 0.7, 0.6]), masks_of(FOUND))
    mean = utils.compute_ap_range(*truth, *found)
    at = [utils.compute_ap(*truth, *found, 0.5 + 0.05 * i).ap for i in range(10)]
    assert mean == pytest.approx(np.mean(at))
    assert len(set(at)) > 1
    printed = capsys.readouterr().out
    assert printed.startswith("AP @0.50:\t 0.667\n")
    assert printed.endswith(f"AP @0.50-0.95:\t {mean:.3f}\n")
    utils.compute_ap_range(*truth, *found, iou_thresholds=[0.5], verbose=0)
    assert not capsys.readouterr().out


def test_recall_of_boxes() -> None:
    recall, hits = utils.compute_recall(np.array(FOUND), np.array(TRUTH), 0.8)
    assert recall == 1
    assert hits.tolist() == [0, 1, 2, 3]
    recall, hits = utils.compute_recall(np.array(FOUND[:2]), np.array(TRUTH), 0.9)
    assert recall == pytest.approx(1 / 3)
    assert hits.tolist() == [0]
