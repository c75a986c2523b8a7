"""Boxes: conversions, areas, overlaps and the coding of deltas."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from kvision.ops import boxes as box_ops
from tests.ops.modes import assert_modes_agree, to_numpy
from tests.parity import numpy_reference as reference


def random_boxes(seed: int, count: int, size: float = 100.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, size, (count, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1)], -1).astype("f4")


def test_xywh_by_hand() -> None:
    boxes = np.array([[1, 2, 4, 8], [0, 0, 0, 0]], np.float32)
    xywh = to_numpy(box_ops.to_xywh(boxes))
    np.testing.assert_array_equal(xywh, [[1, 2, 3, 6], [0, 0, 0, 0]])
    np.testing.assert_array_equal(to_numpy(box_ops.from_xywh(xywh)), boxes)


# In an image of 10 x 20 pixels the last pixel of a row is number 19, which becomes 20.
def test_inclusive_by_hand() -> None:
    boxes = np.array([[0, 0, 20, 10], [0, 0, 1, 1], [19, 9, 20, 10]], np.float32)
    inclusive = to_numpy(box_ops.to_inclusive(boxes, (10, 20)))
    expected = [[0, 0, 20, 10], [0, 0, 0, 0], [20, 10, 20, 10]]
    np.testing.assert_allclose(inclusive, expected, atol=1e-5)
    again = to_numpy(box_ops.from_inclusive(inclusive, (10, 20)))
    np.testing.assert_allclose(again, boxes, atol=1e-5)


def test_area_counts_pixels_and_ignores_reversed_boxes() -> None:
    boxes = np.array([[0, 0, 2, 1], [3, 3, 3, 9], [5, 5, 1, 1], [5, 1, 1, 9]], "f4")
    np.testing.assert_array_equal(to_numpy(box_ops.area(boxes)), [2, 0, 0, 0])


def test_clip_uses_height_for_y_and_width_for_x() -> None:
    boxes = np.array([[-5, -6, 500, 600], [10, 20, 30, 40], [90, 300, 95, 400]], "f4")
    clipped = to_numpy(box_ops.clip(boxes, (50, 80)))
    np.testing.assert_array_equal(
        clipped, [[0, 0, 80, 50], [10, 20, 30, 40], [80, 50, 80, 50]]
    )


#   0   2   4   6        a = (0, 0, 4, 4): 16 px, b = (2, 2, 6, 6): 16 px
# 0 aaaaaaaaa            shared 2 x 2 = 4, union 28
# 2 aaaa####bbbb         c = (4, 0, 6, 2) touches both, shares nothing
# 4     bbbbbbbb
def test_iou_by_hand() -> None:
    boxes = np.array([[0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 6, 2], [1, 1, 1, 3]], "f4")
    expected = np.eye(4)
    expected[0, 1] = expected[1, 0] = 4 / 28
    expected[3, 3] = 0  # an empty box does not even overlap itself
    np.testing.assert_allclose(to_numpy(box_ops.iou(boxes, boxes)), expected, rtol=1e-6)


def test_iou_equals_the_slow_reference_in_every_mode() -> None:
    a, b = random_boxes(0, 12), random_boxes(1, 9)
    b[0], b[1] = a[0], [50, 50, 50, 50]
    iou = assert_modes_agree(box_ops.iou, a, b)
    np.testing.assert_allclose(iou, reference.iou_matrix(a, b), rtol=1e-5, atol=1e-6)


def test_iou_takes_leading_dimensions() -> None:
    a = np.stack([random_boxes(i, 5) for i in range(3)])
    b = random_boxes(9, 4)[None]
    iou = to_numpy(box_ops.iou(a, b))
    assert iou.shape == (3, 5, 4)
    for i in range(3):
        np.testing.assert_allclose(iou[i], to_numpy(box_ops.iou(a[i], b[0])))


def test_coverage_by_hand() -> None:
    boxes = np.array([[0, 0, 4, 4], [2, 2, 3, 3], [9, 9, 9, 9]], np.float32)
    regions = np.array([[2, 0, 10, 4], [0, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(
        to_numpy(box_ops.coverage(boxes, regions)), [[0.5, 0], [1, 0], [0, 0]]
    )


def test_encode_by_hand() -> None:
    reference_box = np.array([[0, 0, 10, 20]], np.float32)  # centre (5, 10)
    box = np.array([[5, 5, 25, 15]], np.float32)  # centre (15, 10), 20 x 10
    deltas = to_numpy(box_ops.encode_deltas(box, reference_box, (10, 10, 5, 5)))
    expected = [[10 * 1.0, 0, 5 * math.log(2), 5 * math.log(0.5)]]
    np.testing.assert_allclose(deltas, expected, rtol=1e-6)


def test_zero_deltas_leave_the_reference() -> None:
    boxes = random_boxes(3, 20)
    decoded = to_numpy(box_ops.decode_deltas(np.zeros((20, 4), "f4"), boxes))
    np.testing.assert_allclose(decoded, boxes, atol=1e-5)


def test_growth_is_limited() -> None:
    """The largest growth is 1000 / 16; there is no limit to shrinking."""
    boxes = np.array([[0, 0, 16, 16]] * 2, np.float32)
    deltas = np.array([[0, 0, 99, 99], [0, 0, -99, -99]], np.float32)
    decoded = to_numpy(box_ops.decode_deltas(deltas, boxes))
    np.testing.assert_allclose(decoded[0], [-492, -492, 508, 508], rtol=1e-5)
    np.testing.assert_allclose(decoded[1], [8, 8, 8, 8])


def test_limit_applies_after_the_weights() -> None:
    boxes = np.array([[0, 0, 16, 16]], np.float32)
    deltas = np.array([[0, 0, 5 * 4.0, 5 * 99]], np.float32)
    decoded = to_numpy(box_ops.decode_deltas(deltas, boxes, (10, 10, 5, 5)))[0]
    assert decoded[2] - decoded[0] == pytest.approx(16 * math.exp(4.0), rel=1e-5)
    assert decoded[3] - decoded[1] == pytest.approx(1000, rel=1e-5)


def test_empty_boxes_give_finite_deltas() -> None:
    """Padding rows go through the coder; a NaN there would reach the gradient."""
    empty = np.zeros((1, 4), np.float32)
    full = np.array([[3, 4, 5, 6]], np.float32)
    for box, anchor in ((empty, full), (full, empty), (empty, empty)):
        assert np.isfinite(to_numpy(box_ops.encode_deltas(box, anchor))).all()


coordinate = st.floats(0, 1000, width=32)
side = st.floats(1, 500, width=32)
box = st.tuples(coordinate, coordinate, side, side).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(box, box), min_size=1, max_size=8),
    st_numpy.arrays(np.float32, 4, elements=st.floats(0.5, 20, width=32)),
)
def test_decode_is_the_inverse_of_encode(pairs: list, weights: np.ndarray) -> None:
    boxes, anchors = (np.array(v, np.float32) for v in zip(*pairs, strict=True))
    growth = (boxes[:, 2:] - boxes[:, :2]) / (anchors[:, 2:] - anchors[:, :2])
    weights = tuple(float(w) for w in weights)
    deltas = box_ops.encode_deltas(boxes, anchors, weights)
    decoded = to_numpy(box_ops.decode_deltas(deltas, anchors, weights))
    reachable = (growth < 1000 / 16).all(axis=1)
    # A shift of hundreds of anchor widths costs that many float32 roundings.
    np.testing.assert_allclose(decoded[reachable], boxes[reachable], atol=0.01)


@settings(max_examples=60, deadline=None)
@given(st.lists(box, min_size=1, max_size=6))
def test_iou_is_symmetric_and_bounded(boxes: list) -> None:
    boxes = np.array(boxes, np.float32)
    iou = to_numpy(box_ops.iou(boxes, boxes))
    np.testing.assert_allclose(iou, iou.T, rtol=1e-6)
    np.testing.assert_allclose(np.diag(iou), 1, rtol=1e-6)
    assert iou.min() >= 0
    assert iou.max() <= 1 + 1e-6


def test_coding_is_the_same_in_every_mode() -> None:
    boxes, anchors = random_boxes(4, 30), random_boxes(5, 30)
    deltas = assert_modes_agree(box_ops.encode_deltas, boxes, anchors)
    assert_modes_agree(box_ops.decode_deltas, deltas.clip(-3, 3), anchors, atol=1e-4)
