"""Targets of training by hand."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision import layers
from tests.ops.modes import in_every_mode, to_numpy

BOX, FAR = [10, 10, 50, 50], [100, 60, 150, 90]
NEAR = [20, 10, 60, 50]  # IoU 0.6 with BOX
APART = [60, 10, 90, 50]  # touches neither
PADDING = [0, 0, 0, 0]
RNG = np.random.default_rng(0)


def batched(rows: list) -> np.ndarray:
    return np.array([rows], np.float32)


def labelled(*labels: int) -> np.ndarray:
    return np.array([labels], np.int32)


def anchor_targets(
    anchors: list, gt_boxes: list, gt_labels: list[int], seed: int = 0, **arguments: Any
) -> dict[str, np.ndarray]:
    layer = layers.AnchorTargets(**{"num_samples": 8} | arguments)
    outputs = layer(
        np.array(anchors, np.float32),
        batched(gt_boxes),
        labelled(*gt_labels),
        np.int32(seed),
    )
    return {name: value[0] for name, value in to_numpy(outputs).items()}


def sampled(targets: dict[str, np.ndarray]) -> tuple[set[int], set[int]]:
    """Rows of the positive and of the negative anchors."""
    used, positive = targets["weights"] > 0, targets["objectness"] > 0
    np.testing.assert_array_equal(targets["box_weights"], targets["objectness"])
    assert not (positive & ~used).any()
    assert not (np.diff(positive.astype(int)) > 0).any(), "positives come first"
    rows = targets["indices"]
    assert len(set(rows[used])) == used.sum(), "no anchor twice"
    return set(rows[positive].tolist()), set(rows[used & ~positive].tolist())


def test_weights_of_anchor_deltas() -> None:
    shifted = [20, 10, 60, 50]
    plain = anchor_targets([BOX], [shifted], [0], positive_iou_threshold=0.5)
    np.testing.assert_allclose(plain["deltas"][0], [0.25, 0, 0, 0], atol=1e-6)
    weights = (10.0, 10.0, 5.0, 5.0)
    anchors, boxes = [BOX], [[20, 10, 100, 50]]
    targets = anchor_targets(anchors, boxes, [0], delta_weights=weights)
    np.testing.assert_allclose(
        targets["deltas"][0], [7.5, 0, 5 * np.log(2), 0], rtol=1e-5
    )


def test_anchors_by_hand() -> None:
    anchors = [BOX, NEAR, FAR, APART]
    # BOX is 1.0, NEAR is 0.6 (between the thresholds), the others are 0.
    targets = anchor_targets(anchors, [BOX, PADDING], [3, -1])
    assert sampled(targets) == ({0}, {2, 3})
    np.testing.assert_allclose(targets["deltas"], np.zeros((8, 4)), atol=1e-6)
    # For 0.65 NEAR would be negative; for 0.5 it would be positive.
    targets = anchor_targets(anchors, [BOX], [3], negative_iou_threshold=0.65)
    assert sampled(targets) == ({0}, {1, 2, 3})
    targets = anchor_targets(anchors, [BOX], [3], positive_iou_threshold=0.5)
    assert sampled(targets) == ({0, 1}, {2, 3})
    row = np.flatnonzero(targets["indices"] == 1)[0]
    # BOX lies 10 px = 1/4 of NEAR's width to the left of NEAR.
    np.testing.assert_allclose(targets["deltas"][row], [-0.25, 0, 0, 0], atol=1e-6)


def test_best_anchor_of_an_object_is_positive_however_small_the_overlap() -> None:
    assert sampled(anchor_targets([NEAR, FAR], [BOX], [0])) == ({0}, {1})


def test_image_without_objects_has_only_negative_anchors() -> None:
    targets = anchor_targets([BOX, FAR], [PADDING, PADDING], [-1, -1])
    assert sampled(targets) == (set(), {0, 1})
    assert not targets["deltas"].any()
    assert targets["weights"].sum() == 2  # two anchors for eight slots


def test_anchors_of_ignore_regions_are_never_negative() -> None:
    # The region covers APART whole, 3/4 of NEAR, half of BOX (not more), none of FAR.
    region = [30, 10, 100, 50]
    targets = anchor_targets([BOX, NEAR, APART, FAR], [region], [-1])
    assert sampled(targets) == (set(), {0, 3})
    # An anchor on an object stays positive inside a region.
    targets = anchor_targets([APART, FAR], [region, APART], [-1, 2])
    assert sampled(targets) == ({0}, {1})


def many_anchors() -> list:
    corners = RNG.uniform(0, 60, (300, 2))
    return np.hstack([corners, corners + RNG.uniform(20, 60, (300, 2))]).tolist()


def test_number_and_share_of_sampled_anchors() -> None:
    anchors = many_anchors()
    arguments = {"positive_iou_threshold": 0.3, "negative_iou_threshold": 0.3}
    targets = anchor_targets(anchors, [BOX], [0], num_samples=40, **arguments)
    positives, negatives = sampled(targets)
    assert (len(positives), len(negatives)) == (20, 20)
    targets = anchor_targets(
        anchors, [BOX], [0], num_samples=40, positive_fraction=0.1, **arguments
    )
    positives, negatives = sampled(targets)
    assert (len(positives), len(negatives)) == (4, 36)


def test_sampling_depends_on_the_seed_alone() -> None:
    anchors, choices = many_anchors(), []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(len(choices))
        targets = anchor_targets(anchors, [BOX], [0], seed, num_samples=40)
        choices.append(targets["indices"].tolist())
    assert choices[0] == choices[1]
    assert set(choices[0]) != set(choices[2])


def roi_targets(
    proposals: list,
    gt_boxes: list,
    gt_labels: list[int],
    is_proposal: list[bool] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> dict[str, np.ndarray]:
    layer = layers.ROITargets(**{"num_classes": 3, "num_samples": 8} | arguments)
    is_proposal = [True] * len(proposals) if is_proposal is None else is_proposal
    outputs = layer(
        batched(proposals),
        np.array([is_proposal]),
        batched(gt_boxes),
        labelled(*gt_labels),
        np.int32(seed),
    )
    return {name: value[0] for name, value in to_numpy(outputs).items()}


def regions(targets: dict[str, np.ndarray]) -> list[tuple]:
    """List (box, label, ground truth of a positive) of the sampled regions, sorted."""
    used, positive = targets["weights"] > 0, targets["box_weights"] > 0
    assert not (positive & ~used).any()
    assert not (np.diff(positive.astype(int)) > 0).any(), "positives come first"
    assert not (np.diff(used.astype(int)) > 0).any(), "empty slots come last"
    assert not targets["rois"][~used].any()
    assert not targets["deltas"][~positive].any()
    return sorted(
        (box.tolist(), label, row if label < 3 else None)
        for box, label, row in zip(
            targets["rois"][used],
            targets["labels"][used].tolist(),
            targets["gt_indices"][used].tolist(),
            strict=True,
        )
    )


def test_regions_by_hand() -> None:
    targets = roi_targets(
        [NEAR, APART, [101, 60, 151, 90]], [FAR, BOX], [2, 0], positive_fraction=0.5
    )
    assert regions(targets) == [
        (BOX, 0, 1),  # the ground truth itself
        (NEAR, 0, 1),
        (APART, 3, None),
        (FAR, 2, 0),
        ([101, 60, 151, 90], 2, 0),
    ]
    np.testing.assert_array_equal(targets["weights"], [1] * 5 + [0] * 3)
    expected = {
        # 10 px of 40, times 10; 1 px of 50, times 10.
        tuple(NEAR): [-2.5, 0, 0, 0],
        (101, 60, 151, 90): [-0.2, 0, 0, 0],
        tuple(BOX): [0, 0, 0, 0],
        tuple(FAR): [0, 0, 0, 0],
    }
    for box, deltas in zip(targets["rois"][:4], targets["deltas"][:4], strict=True):
        np.testing.assert_allclose(deltas, expected[tuple(box)], atol=1e-5)


def test_delta_weights() -> None:
    targets = roi_targets(
        [[10, 10, 50, 30]],
        [BOX],
        [0],
        positive_iou_threshold=0.4,
        negative_iou_threshold=0.4,
        positive_fraction=1.0,
        delta_weights=(1.0, 2.0, 3.0, 4.0),
    )
    row = np.flatnonzero((targets["rois"] == [10, 10, 50, 30]).all(-1))[0]
    # The centre is 10 px of 20 lower, the height twice.
    expected = [0, 2 * 0.5, 0, 4 * np.log(2)]
    np.testing.assert_allclose(targets["deltas"][row], expected, atol=1e-5)


def test_overlap_between_the_thresholds_takes_no_part() -> None:
    targets = roi_targets(
        [NEAR, FAR],
        [BOX],
        [1],
        positive_iou_threshold=0.7,
        negative_iou_threshold=0.5,
    )
    assert regions(targets) == [(BOX, 1, 0), (FAR, 3, None)]


def test_ground_truth_joins_when_there_are_no_proposals() -> None:
    targets = roi_targets([NEAR, FAR], [BOX, PADDING], [1, -1], [False, False])
    assert regions(targets) == [(BOX, 1, 0)]


def test_image_without_objects_gives_background() -> None:
    targets = roi_targets([NEAR, FAR, APART], [PADDING], [-1], [True, True, False])
    assert regions(targets) == [(NEAR, 3, None), (FAR, 3, None)]
    assert (targets["labels"] == 3).all()


def test_image_without_anything_gives_nothing() -> None:
    targets = roi_targets([NEAR], [PADDING], [-1], [False])
    assert regions(targets) == []
    assert all(np.isfinite(value).all() for value in targets.values())


def test_regions_of_ignore_regions_are_never_background() -> None:
    region = [30, 10, 100, 50]  # half of BOX, 3/4 of NEAR, all of APART
    targets = roi_targets([BOX, NEAR, APART, FAR], [region], [-1])
    assert regions(targets) == [(BOX, 3, None), (FAR, 3, None)]
    # The region itself is no object and no background; an object inside it counts.
    targets = roi_targets([NEAR, FAR], [region, APART], [-1, 2])
    assert regions(targets) == [(APART, 2, 1), (FAR, 3, None)]


def test_number_and_share_of_sampled_regions() -> None:
    near = [[10 + i / 8, 10, 50, 50] for i in range(40)]
    far = [[100 + i, 60, 150 + i, 90] for i in range(40)]
    targets = roi_targets(near + far, [BOX], [1], num_samples=20)
    labels = targets["labels"].tolist()
    assert labels == [1] * 5 + [3] * 15
    assert targets["weights"].all()
    # Too few negatives: positives do not take their slots.
    targets = roi_targets(near + far[:2], [BOX], [1], num_samples=20)
    assert targets["labels"].tolist()[:7] == [1] * 5 + [3] * 2
    assert targets["weights"].sum() == 7


def test_regions_depend_on_the_seed_alone() -> None:
    far = [[100 + i, 60, 150 + i, 90] for i in range(40)]
    first, again, other = (
        regions(roi_targets(far, [BOX], [1], seed=seed)) for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("layer", [layers.AnchorTargets, layers.ROITargets])
def test_thresholds_must_be_in_order(layer: type) -> None:
    arguments = {"num_classes": 2} if layer is layers.ROITargets else {}
    with pytest.raises(ValueError, match=r"negative_iou_threshold=0.8, .*=0.6"):
        layer(positive_iou_threshold=0.6, negative_iou_threshold=0.8, **arguments)


def mask_inputs(num_positive: tuple[int, ...], slots: int = 6) -> tuple[Any, ...]:
    """What `ROITargets` would give for images with so many positives."""
    batch, count = len(num_positive), 4
    corners = RNG.uniform(0, 30, (batch, count, 2))
    gt_boxes = np.concatenate([corners, corners + 20], -1).astype(np.float32)
    gt_masks = RNG.integers(0, 256, (batch, count, 14, 14)).astype(np.uint8)
    rows = RNG.integers(0, count, (batch, slots)).astype(np.int32)
    rois = np.take_along_axis(gt_boxes, rows[..., None], 1) + RNG.uniform(
        -3, 3, (1, 1, 4)
    )
    positive = np.arange(slots) < np.array(num_positive)[:, None]
    targets = {
        "rois": np.where(positive[..., None], rois, 0).astype(np.float32),
        "labels": np.where(positive, rows % 2, 2).astype(np.int32),
        "gt_indices": rows,
        "box_weights": positive.astype(np.float32),
    }
    return targets, gt_boxes, gt_masks


def test_mask_target_of_the_box_itself_is_the_mask() -> None:
    targets, gt_boxes, gt_masks = mask_inputs((3, 1))
    rows = targets["gt_indices"]
    targets["rois"] = np.take_along_axis(gt_boxes, rows[..., None], 1)
    layer = layers.MaskTargets(max_positives=6, mask_size=14)
    listed = to_numpy(layer(targets, gt_boxes, gt_masks))
    positive = listed["weights"] > 0
    assert positive.sum() == 4
    images, labels = listed["image_indices"][positive], listed["labels"][positive]
    assert sorted(images.tolist()) == [0, 0, 0, 1]
    for image, label, roi, mask in zip(
        images, labels, listed["rois"][positive], listed["masks"][positive], strict=True
    ):
        row = np.flatnonzero((gt_boxes[image] == roi).all(-1))[0]
        assert label == row % 2
        np.testing.assert_allclose(mask, gt_masks[image, row] / 255, atol=1e-4)


@pytest.mark.parametrize(
    ("num_positive", "slots", "length"),
    [((3, 1), 6, 12), ((20, 14), 50, 64), ((0, 0), 40, 1), ((40, 40), 40, 80)],
)
def test_list_is_as_long_as_there_are_positives(
    num_positive: tuple[int, ...], slots: int, length: int
) -> None:
    """Rounded up to a multiple of 32, at most all slots, at least one row."""
    layer = layers.MaskTargets(max_positives=slots, mask_size=7)
    inputs = mask_inputs(num_positive, slots)
    results = in_every_mode(layer, *inputs)
    for mode, expected in (
        ("eager", length),
        ("graph", length),
        ("xla", len(num_positive) * slots),
    ):
        assert {len(value) for value in results[mode].values()} == {expected}
        assert results[mode]["weights"].sum() == sum(num_positive)


@pytest.mark.parametrize("num_positive", [(5, 2), (0, 0)])
def test_short_list_and_static_list_give_the_same_loss(
    num_positive: tuple[int, ...],
) -> None:
    """A graph drops empty slots and XLA weighs them 0; gradients agree too."""
    targets, gt_boxes, gt_masks = keras.tree.map_structure(
        tf.convert_to_tensor, mask_inputs(num_positive)
    )
    features = {"P2": tf.constant(RNG.normal(size=(2, 16, 16, 3)), tf.float32)}
    select = layers.MaskTargets(max_positives=6, mask_size=8)
    align = layers.ROIAlign((64, 64), output_size=4)
    head, loss = layers.MaskHead(2, channels=4, num_convs=1), layers.MaskLoss()

    def step() -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            listed = select(targets, gt_boxes, gt_masks)
            pooled = align(features, listed["rois"], listed["image_indices"])
            value = loss(head(pooled, listed["labels"]), listed)["mask_loss"]
        return value, tape.gradient(value, [w.value for w in head.trainable_variables])

    step()
    head.set_weights([RNG.normal(size=w.shape) / 3 for w in head.weights])
    results = in_every_mode(step)
    for mode in ("graph", "xla"):
        for got, expected in zip(
            keras.tree.flatten(results[mode]),
            keras.tree.flatten(results["eager"]),
            strict=True,
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    value, gradients = results["eager"]
    assert (value > 0.1) == any(num_positive)
    assert all(np.any(gradient) == any(num_positive) for gradient in gradients)
