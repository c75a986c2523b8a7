"""Non-maximum suppression with static shapes."""

from collections.abc import Callable

import numpy as np
import pytest

from kvision.ops import nms
from kvision.ops.nms import grouped_nms
from tests.ops.modes import assert_modes_agree, to_numpy
from tests.parity import numpy_reference as reference


@pytest.fixture(params=["tensorflow", "portable"])
def suppress(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable:
    """`grouped_nms` with TensorFlow's kernel, and with `keras.ops` only."""
    if request.param == "portable":
        monkeypatch.setattr(nms, "_tensorflow_nms", nms.portable_nms)
    return grouped_nms


def kept_rows(result: tuple) -> list[list[int]]:
    """Rows kept of each image, filling removed."""
    indices, is_kept = to_numpy(result)
    for row, mask in zip(indices, is_kept, strict=True):
        assert (row[~mask] == 0).all()  # filling is 0, and comes last
        assert (np.sort(~mask) == ~mask).all()
    return [row[mask].tolist() for row, mask in zip(indices, is_kept, strict=True)]


def clusters(seed: int, count: int, size: float = 300.0) -> tuple:
    rng = np.random.default_rng(seed)
    centre = rng.uniform(20, size, (count // 5 + 1, 2))[
        rng.integers(0, count // 5, count)
    ]
    centre = centre + rng.normal(0, 4, (count, 2))
    half = rng.uniform(8, 30, (count, 2))
    boxes = np.concatenate([centre - half, centre + half], 1).clip(0).astype("f4")
    return boxes[None], rng.random((1, count), dtype=np.float32)


#  boxes 0 and 1: shared 90, union 110, iou 0.818; box 2 elsewhere
BOXES = np.array([[[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]]], np.float32)
SCORES = np.array([[0.6, 0.9, 0.3]], np.float32)
ALL = np.ones((1, 3), bool)
ONE_GROUP = np.zeros((1, 3), np.int32)


def test_by_hand(suppress: Callable) -> None:
    result = suppress(BOXES, SCORES, ONE_GROUP, ALL, 1, 0.5, 3)
    assert kept_rows(result) == [[1, 2]]


def test_overlap_equal_to_the_threshold_stays(suppress: Callable) -> None:
    boxes = np.array([[[0, 0, 4, 4], [0, 0, 4, 2]]], np.float32)  # iou 0.5 exactly
    scores, mask = np.array([[0.9, 0.8]], np.float32), np.ones((1, 2), bool)
    groups = np.zeros((1, 2), np.int32)
    assert kept_rows(suppress(boxes, scores, groups, mask, 1, 0.5, 2)) == [[0, 1]]
    assert kept_rows(suppress(boxes, scores, groups, mask, 1, 0.49, 2)) == [[0]]


def test_groups_do_not_suppress_each_other(suppress: Callable) -> None:
    groups = np.array([[0, 1, 1]], np.int32)
    result = suppress(BOXES, SCORES, groups, ALL, 2, 0.5, 3)
    assert kept_rows(result) == [[1, 0, 2]]


def test_non_candidates_neither_stay_nor_suppress(suppress: Callable) -> None:
    mask = np.array([[True, False, True]])
    result = suppress(BOXES, SCORES, ONE_GROUP, mask, 1, 0.5, 3)
    assert kept_rows(result) == [[0, 2]]


def test_no_candidates(suppress: Callable) -> None:
    result = suppress(BOXES, SCORES, ONE_GROUP, ~ALL, 1, 0.5, 3)
    assert kept_rows(result) == [[]]


def test_equal_scores_stay_in_index_order(suppress: Callable) -> None:
    scores = np.full((1, 3), 0.5, np.float32)
    result = suppress(BOXES, scores, ONE_GROUP, ALL, 1, 0.5, 3)
    assert kept_rows(result) == [[0, 2]]


def test_negative_scores_and_logits_count(suppress: Callable) -> None:
    scores = np.array([[-700.0, -3.0, -90.0]], np.float32)
    result = suppress(BOXES, scores, ONE_GROUP, ALL, 1, 0.5, 3)
    assert kept_rows(result) == [[1, 2]]


def test_limit_cuts_the_weakest(suppress: Callable) -> None:
    groups = np.array([[0, 1, 2]], np.int32)
    result = suppress(BOXES, SCORES, groups, ALL, 3, 0.5, 2)
    assert kept_rows(result) == [[1, 0]]


def test_more_room_than_boxes(suppress: Callable) -> None:
    result = suppress(BOXES, SCORES, ONE_GROUP, ALL, 1, 0.5, 7)
    assert to_numpy(result[0]).shape == (1, 7)
    assert kept_rows(result) == [[1, 2]]


def test_empty_boxes_do_not_suppress(suppress: Callable) -> None:
    boxes = np.array([[[5, 5, 5, 5], [5, 5, 5, 5], [5, 5, 5, 9]]], np.float32)
    result = suppress(boxes, SCORES, ONE_GROUP, ALL, 1, 0.5, 3)
    assert kept_rows(result) == [[1, 0, 2]]


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_equals_the_slow_reference(suppress: Callable, threshold: float) -> None:
    boxes, scores = clusters(0, 120)
    groups = np.random.default_rng(1).integers(0, 5, (1, 120)).astype(np.int32)
    mask = np.random.default_rng(2).random((1, 120)) < 0.9
    kept = kept_rows(suppress(boxes, scores, groups, mask, 5, threshold, 100))[0]
    rows = np.flatnonzero(mask[0])
    expected = reference.grouped_nms(
        boxes[0, rows], scores[0, rows], groups[0, rows], threshold, 100
    )
    assert kept == rows[expected].tolist()


def test_batch_equals_single_images(suppress: Callable) -> None:
    parts = [clusters(seed, 60) for seed in range(3)]
    boxes, scores = (np.concatenate(p) for p in zip(*parts, strict=True))
    groups, mask = np.zeros((1, 60), np.int32), np.ones((3, 60), bool)
    together = kept_rows(suppress(boxes, scores, groups, mask, 1, 0.4, 30))
    for i in range(3):
        one = slice(i, i + 1)
        alone = suppress(boxes[one], scores[one], groups, mask[one], 1, 0.4, 30)
        assert together[i] == kept_rows(alone)[0]


@pytest.mark.parametrize("batch", [1, 2])
def test_every_mode_keeps_the_same(suppress: Callable, batch: int) -> None:
    boxes, scores = clusters(3, 80)
    boxes, scores = np.repeat(boxes, batch, 0), np.repeat(scores, batch, 0)
    groups = (np.arange(80) % 4).astype(np.int32)[None]
    mask = np.ones((batch, 80), bool)

    def run(boxes: object, scores: object) -> tuple:
        return suppress(boxes, scores, groups, mask, 4, 0.5, 40)

    assert_modes_agree(run, boxes, scores)


def test_kernel_and_portable_form_agree_on_many_groups() -> None:
    """90 classes: the shifted coordinates must not cost precision."""
    boxes, scores = clusters(4, 400, size=1000.0)
    groups = np.random.default_rng(4).integers(0, 90, (1, 400)).astype(np.int32)
    mask = np.ones((1, 400), bool)
    kept = kept_rows(grouped_nms(boxes, scores, groups, mask, 90, 0.5, 400))[0]
    expected = reference.grouped_nms(boxes[0], scores[0], groups[0], 0.5, 400)
    assert kept == expected
