"""Detections by hand."""

import numpy as np
import pytest

from kvision import layers
from tests.ops.modes import assert_modes_agree, to_numpy

IMAGE_SIZE = (100, 200)
BOX = [10, 10, 50, 50]
NEAR = [20, 10, 60, 50]  # IoU 0.6 with BOX
FAR = [100, 60, 150, 90]


def select(
    scores: list[list[float]],
    proposals: list[list[float]],
    deltas: np.ndarray | None = None,
    is_proposal: list[bool] | None = None,
    xla: bool = False,
    **arguments: float,
) -> dict[str, np.ndarray]:
    """Detect in one image from class scores (background last, sum 1)."""
    scores = np.array([scores], np.float32)
    shape = (1, len(proposals), scores.shape[-1] - 1, 4)
    layer = layers.DetectionSelection(IMAGE_SIZE, **{"max_detections": 5} | arguments)
    inputs = (
        np.log(scores),
        np.zeros(shape, np.float32) if deltas is None else deltas,
        np.array([proposals], np.float32),
        np.array([[True] * len(proposals) if is_proposal is None else is_proposal]),
    )
    outputs = assert_modes_agree(layer, *inputs) if xla else to_numpy(layer(*inputs))
    number = outputs["num_detections"][0]
    assert outputs["boxes"].shape == (1, layer.max_detections, 4)
    assert not outputs["boxes"][0, number:].any()
    assert not outputs["scores"][0, number:].any()
    assert (outputs["labels"][0, number:] == -1).all()
    return {name: outputs[name][0, :number] for name in ("boxes", "scores", "labels")}


def assert_detections(
    got: dict[str, np.ndarray], boxes: list, scores: list, labels: list
):
    np.testing.assert_array_equal(got["labels"], labels)
    np.testing.assert_allclose(got["scores"], scores, atol=1e-5)
    np.testing.assert_allclose(got["boxes"], np.reshape(boxes, (-1, 4)), atol=1e-3)


def test_one_region_can_be_two_classes() -> None:
    got = select([[0.3, 0.5, 0.2], [0.04, 0.06, 0.9]], [BOX, FAR], xla=True)
    assert_detections(got, [BOX, BOX, FAR], [0.5, 0.3, 0.06], [1, 0, 1])


def test_best_class_only() -> None:
    """And nothing where that is the background."""
    scores = [[0.3, 0.5, 0.2], [0.4, 0.05, 0.55]]
    got = select(scores, [BOX, FAR], best_class_only=True, xla=True)
    assert_detections(got, [BOX], [0.5], [1])


def test_each_class_has_its_own_box() -> None:
    deltas = np.zeros((1, 1, 2, 4), np.float32)
    deltas[0, 0, 0] = [10 * 0.5, 0, 0, 0]  # half a width to the right
    deltas[0, 0, 1] = [0, 0, 5 * np.log(2), 0]  # twice as wide
    got = select([[0.6, 0.3, 0.1]], [[20, 20, 60, 40]], deltas)
    boxes = [[40, 20, 80, 40], [0, 20, 80, 40]]
    assert_detections(got, boxes, [0.6, 0.3], [0, 1])


def test_delta_weights() -> None:
    deltas = np.float32([0.5, 0.5, 0, 0]).reshape(1, 1, 1, 4)
    weights = (1.0, 2.0, 1.0, 1.0)
    got = select([[0.6, 0.4]], [[20, 20, 60, 40]], deltas, delta_weights=weights)
    assert_detections(got, [[40, 25, 80, 45]], [0.6], [0])


def test_suppression_is_within_a_class() -> None:
    got = select([[0.8, 0.01, 0.19], [0.7, 0.01, 0.29]], [BOX, NEAR])
    assert_detections(got, [BOX], [0.8], [0])
    got = select([[0.8, 0.01, 0.19], [0.01, 0.7, 0.29]], [BOX, NEAR])
    assert_detections(got, [BOX, NEAR], [0.8, 0.7], [0, 1])
    got = select(
        [[0.8, 0.01, 0.19], [0.7, 0.01, 0.29]], [BOX, NEAR], nms_iou_threshold=0.65
    )
    assert_detections(got, [BOX, NEAR], [0.8, 0.7], [0, 0])


def test_score_must_exceed_the_threshold() -> None:
    # Two equal logits: the score is 0.5 exactly.
    half = [[0.5, 0.5]]
    assert len(select(half, [BOX], score_threshold=0.5)["labels"]) == 0
    assert len(select(half, [BOX], score_threshold=0.49)["labels"]) == 1


def test_filler_proposals_give_nothing() -> None:
    got = select(
        [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]],
        [BOX, FAR, [0, 0, 0, 0]],
        is_proposal=[False, True, False],
        score_threshold=0.0,
    )
    assert_detections(got, [FAR], [0.8], [0])
    nothing = select([[0.9, 0.1]], [BOX], is_proposal=[False], score_threshold=0.0)
    assert_detections(nothing, [], [], [])


def test_best_are_kept_when_there_are_too_many() -> None:
    scores = [[0.3, 0.7], [0.9, 0.1], [0.6, 0.4]]
    boxes = [BOX, FAR, [70, 5, 90, 20]]
    got = select(scores, boxes, max_detections=2)
    assert_detections(got, [boxes[1], boxes[2]], [0.9, 0.6], [0, 0])
    got = select(scores, boxes, pre_nms_top_k=1)
    assert_detections(got, [boxes[1]], [0.9], [0])


def test_boxes_are_clipped_and_small_ones_dropped() -> None:
    got = select(
        [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]],
        [[-10, -10, 20, 20], [195, 50, 240, 150], [-30, 0, -5, 10]],
        min_size=3,
    )
    assert_detections(got, [[0, 0, 20, 20], [195, 50, 200, 100]], [0.9, 0.8], [0, 0])


def test_logits_that_are_not_finite_give_nothing() -> None:
    assert len(select([[np.nan, np.nan, 1.0]], [BOX])["labels"]) == 0


@pytest.mark.parametrize("num_classes", [1, 80])
def test_images_do_not_influence_each_other(num_classes: int) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 80, (3, 12, 2))
    proposals = np.concatenate([corners, corners + 15], -1).astype(np.float32)
    logits = 3 * rng.normal(size=(3, 12, num_classes + 1)).astype(np.float32)
    deltas = rng.normal(size=(3, 12, num_classes, 4)).astype(np.float32)
    is_proposal = np.ones((3, 12), bool)
    layer = layers.DetectionSelection(IMAGE_SIZE, max_detections=30)
    together = to_numpy(layer(logits, deltas, proposals, is_proposal))
    assert (together["num_detections"] > 1).all()
    for i in range(3):
        rows = slice(i, i + 1)
        alone = layer(logits[rows], deltas[rows], proposals[rows], is_proposal[rows])
        for name, value in to_numpy(alone).items():
            np.testing.assert_allclose(together[name][i], value[0], atol=1e-4)


def test_inclusive_boxes_become_pixels() -> None:
    boxes = np.float32([[[0, 0, 200, 100], [0, 0, 0, 0], [0, 0, 0, 0]]])
    pixels = layers.PixelBoxes(IMAGE_SIZE)(boxes, np.int32([[1, 0, -1]]))
    expected = [[[0, 0, 200, 100], [0, 0, 1, 1], [0, 0, 0, 0]]]
    np.testing.assert_allclose(to_numpy(pixels), expected, atol=1e-5)


def test_masks_of_padding_are_zero() -> None:
    logits = np.zeros((1, 3, 1, 2), np.float32)
    logits[0, :, 0, 1] = np.log(3)
    scores = layers.MaskScores()(logits, np.int32([[4, 0, -1]]))
    expected = [[[[0.5, 0.75]], [[0.5, 0.75]], [[0, 0]]]]
    np.testing.assert_allclose(to_numpy(scores), expected, rtol=1e-6)
