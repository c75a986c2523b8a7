"""Proposals by hand."""

import numpy as np
import pytest

from kvision import layers
from tests.ops.modes import assert_modes_agree, to_numpy

IMAGE_SIZE = (100, 200)
BOX = [10, 10, 50, 50]
# IoU 0.6 with BOX: 30 of 50 columns are shared, 40 rows each.
NEAR = [20, 10, 60, 50]
FAR = [100, 60, 150, 90]


def select(
    boxes: dict[str, list], logits: dict[str, list], **arguments: float
) -> tuple[np.ndarray, np.ndarray]:
    """Run on one image whose anchors are moved nowhere; return what is proposed."""
    anchors = {name: np.array(rows, np.float32) for name, rows in boxes.items()}
    scores = {name: np.array([row], np.float32) for name, row in logits.items()}
    deltas = {name: np.zeros((1, *rows.shape)) for name, rows in anchors.items()}
    layer = layers.ProposalSelection(IMAGE_SIZE, **{"post_nms_top_k": 4} | arguments)
    proposals, is_proposal = to_numpy(layer(scores, deltas, anchors))
    assert proposals.shape == (1, layer.post_nms_top_k, 4)
    assert is_proposal.dtype == bool
    assert not proposals[~is_proposal].any()
    number = is_proposal.sum()
    assert is_proposal[0, :number].all(), "filling comes last"
    return proposals[0, :number], proposals


def test_suppression_is_within_a_level() -> None:
    one_level, _ = select({"P2": [BOX, NEAR]}, {"P2": [1, 2]}, nms_iou_threshold=0.5)
    np.testing.assert_allclose(one_level, [NEAR], atol=1e-4)
    two_levels, _ = select(
        {"P2": [BOX], "P3": [NEAR]}, {"P2": [1], "P3": [2]}, nms_iou_threshold=0.5
    )
    np.testing.assert_allclose(two_levels, [NEAR, BOX], atol=1e-4)


def test_overlap_at_the_threshold_stays() -> None:
    both, _ = select({"P2": [BOX, NEAR]}, {"P2": [1, 2]}, nms_iou_threshold=0.61)
    np.testing.assert_allclose(both, [NEAR, BOX], atol=1e-4)


def test_best_of_all_levels_in_descending_order() -> None:
    boxes = {"P2": [BOX, FAR], "P3": [FAR, BOX]}
    logits = {"P2": [0.5, -3], "P3": [-1, 4]}
    kept, _ = select(boxes, logits, post_nms_top_k=3)
    np.testing.assert_allclose(kept, [BOX, BOX, FAR], atol=1e-4)


def test_top_k_is_counted_for_each_level() -> None:
    boxes = {"P2": [BOX, FAR, [0, 0, 5, 5]], "P3": [FAR, BOX]}
    logits = {"P2": [3, 2, 1], "P3": [0.2, 0.1]}
    kept, _ = select(boxes, logits, pre_nms_top_k=1)
    np.testing.assert_allclose(kept, [BOX, FAR], atol=1e-4)


def test_all_levels_as_one() -> None:
    """The top k and the suppression know no levels."""
    boxes = {"P2": [BOX, [0, 0, 5, 5]], "P3": [FAR, NEAR]}
    logits = {"P2": [3, 1], "P3": [2, 2.5]}
    arguments = {"pre_nms_top_k": 3, "nms_iou_threshold": 0.5}
    apart, _ = select(boxes, logits, **arguments)
    np.testing.assert_allclose(apart, [BOX, NEAR, FAR, [0, 0, 5, 5]], atol=1e-4)
    together, _ = select(boxes, logits, per_level=False, **arguments)
    np.testing.assert_allclose(together, [BOX, FAR], atol=1e-4)


def test_delta_weights() -> None:
    deltas = np.float32([5.0, 0, 0, 5 * np.log(0.5)]).reshape(1, 1, 4)
    weights = (10.0, 10.0, 5.0, 5.0)
    layer = layers.ProposalSelection(IMAGE_SIZE, delta_weights=weights)
    anchors = {"P2": np.array([BOX], np.float32)}
    proposals, _ = layer({"P2": np.zeros((1, 1))}, {"P2": deltas}, anchors)
    # Half a width to the right, half as high.
    np.testing.assert_allclose(proposals[0, 0], [30, 20, 70, 40], atol=1e-4)


def test_boxes_are_clipped_and_small_ones_dropped() -> None:
    outside = [
        [-20, -30, 40, 20],
        [190, 90, 300, 300],
        [-50, 0, -10, 40],
        [9, 9, 11, 40],
    ]
    kept, _ = select({"P2": outside}, {"P2": [4, 3, 2, 1]}, min_size=5)
    np.testing.assert_allclose(kept, [[0, 0, 40, 20], [190, 90, 200, 100]], atol=1e-4)
    kept, _ = select({"P2": outside}, {"P2": [4, 3, 2, 1]}, min_size=2)
    assert len(kept) == 3


def test_fewer_anchors_than_slots_in_every_mode() -> None:
    """XLA's suppression cannot return more boxes than it is given by itself."""
    anchors = {"P2": np.float32([BOX, FAR])}
    layer = layers.ProposalSelection(IMAGE_SIZE, post_nms_top_k=7)
    logits, deltas = np.float32([[1, np.nan]]), np.zeros((1, 2, 4), np.float32)
    proposals, is_proposal = assert_modes_agree(
        layer, {"P2": logits}, {"P2": deltas}, anchors
    )
    np.testing.assert_array_equal(is_proposal, [[True] + [False] * 6])
    np.testing.assert_allclose(proposals[0, 0], BOX, atol=1e-4)


def test_deltas_move_anchors() -> None:
    layer = layers.ProposalSelection(IMAGE_SIZE, post_nms_top_k=1)
    # Half a width to the right, a quarter of a height down, twice as high.
    deltas = np.float32([[[0.5, 0.25, 0, np.log(2)]]])
    proposals, _ = layer(
        {"P4": np.zeros((1, 1))}, {"P4": deltas}, {"P4": np.float32([[20, 20, 40, 40]])}
    )
    np.testing.assert_allclose(to_numpy(proposals)[0], [[30, 15, 50, 55]], atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_give_no_proposals(value: float) -> None:
    kept, _ = select(
        {"P2": [BOX, FAR], "P3": [NEAR]}, {"P2": [value] * 2, "P3": [value]}
    )
    assert len(kept) == 0


def test_deltas_that_are_not_finite_give_no_proposals() -> None:
    layer = layers.ProposalSelection(IMAGE_SIZE, post_nms_top_k=2)
    deltas = np.full((1, 2, 4), np.nan, np.float32)
    proposals, is_proposal = layer(
        {"P2": np.zeros((1, 2))}, {"P2": deltas}, {"P2": np.float32([BOX, FAR])}
    )
    assert not to_numpy(is_proposal).any()
    assert not to_numpy(proposals).any()


def test_images_do_not_influence_each_other() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 80, (30, 2))
    anchors = {"P2": np.hstack([corners, corners + 15]).astype(np.float32)}
    logits = rng.normal(size=(3, 30)).astype(np.float32)
    deltas = rng.normal(size=(3, 30, 4)).astype(np.float32) / 4
    layer = layers.ProposalSelection(IMAGE_SIZE, post_nms_top_k=12)
    together = to_numpy(layer({"P2": logits}, {"P2": deltas}, anchors))
    for i in range(3):
        alone = to_numpy(
            layer({"P2": logits[i : i + 1]}, {"P2": deltas[i : i + 1]}, anchors)
        )
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i], b[0], atol=1e-4)
