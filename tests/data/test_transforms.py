"""Augmentation: boxes are the extents of the moved masks, seeds decide everything."""

import math

import numpy as np
import pytest
import tensorflow as tf

from kvision.data.images import resize_image, resized_size
from kvision.data.transforms import (
    CopyPaste,
    HorizontalFlip,
    LargeScaleJitter,
    Move,
    Photometric,
    Rotate,
    Rotate90,
    VerticalFlip,
    compose,
    default_transforms,
)
from kvision.data.warp import affine, pad_rows, warp
from tests.data.pictures import check_sample, extents, sample_of, three_shapes

MOVES = [
    HorizontalFlip(1.0),
    VerticalFlip(1.0),
    Rotate90(),
    Rotate(30.0, 1.0),
    LargeScaleJitter(0.3, 2.0),
    LargeScaleJitter(1.5, 3.0),
]


@pytest.mark.parametrize("move", MOVES, ids=repr)
def test_boxes_are_extents_of_masks(move: Move) -> None:
    sample = sample_of(three_shapes())
    apply = tf.function(lambda seed: move(sample, seed))
    # Half a pixel of the original, and the rounding of what the image shows.
    tolerance = max(1.0, 0.5 * move.zoom)
    seen = [
        check_sample(apply(tf.constant([seed, 0])), tolerance) for seed in range(12)
    ]
    assert max(seen) == 3


def test_all_moves_at_once() -> None:
    """As in a pipeline: one map, and one more for another size of the result."""
    sample = sample_of(three_shapes())
    size = tf.constant([96.0, 128.0], tf.float64)

    @tf.function
    def apply(seed: tf.Tensor) -> dict:
        matrix, frame = compose(MOVES[:5], seed, size)
        fit = affine([[200 / frame[1], 0, 0], [0, 150 / frame[0], 0]])
        return warp(sample, fit @ matrix, (150, 200))

    seen = [check_sample(apply(tf.constant([seed, 1])), 1.5) for seed in range(20)]
    assert sum(seen) > 20


@pytest.mark.parametrize("move", MOVES[:3], ids=repr)
def test_turns_and_mirrors_are_exact(move: Move) -> None:
    """Nothing is interpolated: the pixels, the cells and the edges are permuted."""
    sample = sample_of(three_shapes())
    for seed in range(6):
        moved = move(sample, tf.constant([seed, 0]))
        # Undone by whichever of the eight symmetries fits.
        candidates = [
            np.rot90(sample["images"][:, :: 1 - 2 * flip], turn)
            for flip in (0, 1)
            for turn in range(4)
        ]
        equal = [np.array_equal(moved["images"], c) for c in candidates]
        assert any(equal)
        check_sample(moved, tolerance=0.0)
        grids, old = moved["gt_masks"].numpy(), sample["gt_masks"].numpy()
        assert sorted(grids.sum((1, 2))) == sorted(old.sum((1, 2)))


def test_flip_by_hand() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    sample = {
        "images": tf.constant(image),
        "gt_boxes": tf.constant([[0.0, 0.5, 1.25, 2.0], [0, 0, 0, 0], [1, 0, 2, 1]]),
        "gt_labels": tf.constant([4, -1, -1]),  # an object, padding, a crowd region
        "gt_masks": tf.constant([[[255, 0]], [[0, 0]], [[9, 7]]], tf.uint8),
    }
    sample["gt_masks"] = tf.repeat(sample["gt_masks"], 2, axis=1)
    moved = HorizontalFlip(1.0)(sample, tf.constant([0, 0]))
    np.testing.assert_array_equal(moved["images"], image[:, ::-1])
    np.testing.assert_allclose(
        moved["gt_boxes"], [[2.75, 0.5, 4.0, 2.0], [0, 0, 0, 0], [2, 0, 3, 1]]
    )
    np.testing.assert_array_equal(moved["gt_labels"], [4, -1, -1])
    np.testing.assert_array_equal(moved["gt_masks"][:, 0], [[0, 255], [0, 0], [7, 9]])


def test_rotation_by_hand() -> None:
    """A quarter turn through `Rotate` equals the exact one of `Rotate90`."""
    sample = sample_of(three_shapes(96, 96))
    size = tf.constant([96.0, 96.0], tf.float64)
    quarter = affine([[0, -1, 96], [1, 0, 0]])
    turned = warp(sample, quarter, (96, 96))
    np.testing.assert_array_equal(turned["images"], np.rot90(sample["images"], -1))

    class Quarter(Rotate):
        def matrix(self, seed: tf.Tensor, size: tf.Tensor) -> tuple:
            # Off by a hair, so that it is not recognised.
            angle = math.radians(90.0 + 1e-3)
            cos, sin = math.cos(angle), math.sin(angle)
            x, y = size[1] / 2, size[0] / 2
            rows = [[cos, -sin, x - cos * x + sin * y]]
            return affine([*rows, [sin, cos, y - sin * x - cos * y]]), size

    del size
    turned_slowly = Quarter()(sample, tf.constant([0, 0]))
    difference = turned_slowly["images"].numpy() != turned["images"].numpy()
    assert difference.mean() < 0.01
    np.testing.assert_allclose(turned_slowly["gt_boxes"], turned["gt_boxes"], atol=0.3)


@pytest.mark.parametrize("size", [(96, 128), (64, 64), (200, 150), (33, 300), (1, 500)])
def test_fitting_is_the_rule_of_resizing(size: tuple[int, int]) -> None:
    """The pipeline's map and prediction's resizing give the same pixels."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*size, 3), np.uint8)
    boxes = tf.constant([[3.0, 0.0, 20.5, float(size[0])]])
    labels = tf.constant([0])
    fitted = resized_size(*size, (80, 100))
    scale = np.divide(fitted, size)
    matrix = affine([[scale[1], 0, 0], [0, scale[0], 0]])
    sample = {"images": tf.constant(image), "gt_boxes": boxes, "gt_labels": labels}
    moved = warp(sample, matrix, (80, 100))
    np.testing.assert_array_equal(
        moved["images"], resize_image(image, (80, 100), "pad")
    )
    np.testing.assert_allclose(
        moved["gt_boxes"], boxes * scale[[1, 0, 1, 0]].astype(np.float32), rtol=1e-6
    )


def test_crop_cuts_boxes_and_drops_what_is_gone() -> None:
    sample = sample_of(three_shapes())
    # The upper left 64 x 64 pixels, twice as large: the triangle is out of sight.
    moved = warp(sample, affine([[2, 0, 0], [0, 2, 0]]), (128, 128))
    np.testing.assert_array_equal(moved["gt_labels"], [-1, 0, 1, -1, -1, -1])
    check_sample(moved)
    # 1e-3 of the ring is left: nothing to learn from.
    (x1, _, _, _) = extents(three_shapes()[0])
    moved = warp(sample, affine([[1, 0, -128 + x1 + 0.5], [0, 1, 0]]), (96, 128))
    assert 0 not in moved["gt_labels"].numpy()[1:2]


def test_without_masks_boxes_are_moved() -> None:
    sample = sample_of(three_shapes())
    del sample["gt_masks"]
    seed = tf.constant([3, 0])
    matrix, _ = Rotate(30.0, 1.0).matrix(seed, tf.constant([96.0, 128.0], tf.float64))
    moved = Rotate(30.0, 1.0)(sample, seed)
    x1, y1, x2, y2 = sample["gt_boxes"][1].numpy()
    corners = np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]])
    corners = (corners @ matrix.numpy().T)[:, :2]
    around = np.concatenate([corners.min(0), corners.max(0)])
    around = np.clip(around, 0, [128, 96, 128, 96])
    np.testing.assert_allclose(moved["gt_boxes"][1], around, atol=1e-3)


def test_no_objects_at_all() -> None:
    sample = {
        "images": tf.zeros((20, 30, 3), tf.uint8),
        "gt_boxes": tf.zeros((0, 4)),
        "gt_labels": tf.zeros((0,), tf.int32),
        "gt_masks": tf.zeros((0, 8, 8), tf.uint8),
    }
    for move in MOVES[2:5]:
        moved = tf.function(lambda seed, move=move: move(sample, seed))(
            tf.constant([1, 2])
        )
        assert moved["gt_masks"].shape == (0, 8, 8)


def test_unknown_keys_are_refused() -> None:
    sample = {**sample_of(three_shapes()), "gt_keypoints": tf.zeros((6, 17, 3))}
    with pytest.raises(ValueError, match=r"gt_keypoints.*cannot be moved"):
        HorizontalFlip(1.0)(sample, tf.constant([0, 0]))


def test_same_seed_same_result() -> None:
    sample = sample_of(three_shapes())
    for transform in [*default_transforms(), Rotate(), Rotate90()]:
        first, again = (transform(sample, tf.constant([5, 6])) for _ in range(2))
        for name in sample:
            np.testing.assert_array_equal(first[name], again[name])


@pytest.mark.parametrize("move", [HorizontalFlip(0.3), VerticalFlip(0.3)])
def test_probability(move: Move) -> None:
    size = tf.constant([10.0, 10.0], tf.float64)
    draw = tf.function(lambda seed: move.matrix(seed, size)[0])
    flipped = [
        not np.array_equal(draw(tf.constant([seed, 0])), np.eye(3))
        for seed in range(400)
    ]
    assert 0.23 < np.mean(flipped) < 0.37


def test_jitter_covers_its_range() -> None:
    jitter = LargeScaleJitter(0.5, 1.5)
    assert jitter.zoom == 1.5
    assert LargeScaleJitter(0.1, 0.5).zoom == 1.0
    size = tf.constant([100.0, 200.0], tf.float64)
    draw = tf.function(lambda seed: jitter.matrix(seed, size)[0])
    maps = np.stack([draw(tf.constant([seed, 0])) for seed in range(300)])
    scales = maps[:, 0, 0]
    np.testing.assert_array_equal(scales, maps[:, 1, 1])
    assert 0.5 <= scales.min() < 0.52
    assert 1.48 < scales.max() <= 1.5
    # Where the image is smaller it stays inside, where it is larger it covers all.
    for axis, length in ((0, 200), (1, 100)):
        start = maps[:, axis, 2]
        end = start + scales * length
        small = scales <= 1
        assert (start[small] >= -1e-9).all()
        assert (end[small] <= length + 1e-9).all()
        assert (start[~small] <= 1e-9).all()
        assert (end[~small] >= length - 1e-9).all()


def test_jitter_arguments() -> None:
    with pytest.raises(ValueError, match=r"low=2.0, high=0.5"):
        LargeScaleJitter(2.0, 0.5)


def test_pad_rows_keeps_objects_and_crowds() -> None:
    sample = {
        "images": tf.zeros((4, 4, 3)),
        "gt_boxes": tf.constant([[0.0] * 4, [0, 0, 2, 2], [0.0] * 4, [1, 1, 3, 3]]),
        "gt_labels": tf.constant([-1, 5, -1, -1]),
    }
    padded = pad_rows(sample, 3)
    np.testing.assert_array_equal(padded["gt_labels"], [5, -1, -1])
    np.testing.assert_array_equal(padded["gt_boxes"][1], [1, 1, 3, 3])
    np.testing.assert_array_equal(padded["gt_boxes"][2], [0, 0, 0, 0])
    np.testing.assert_array_equal(pad_rows(sample, 1)["gt_labels"], [5])


def test_photometric_by_hand() -> None:
    """Saturation alone: the distance from each pixel's grey is scaled."""
    random = np.random.default_rng(0)
    image = random.integers(40, 200, (6, 5, 3)).astype(np.float32)
    change = Photometric(0.0, 0.0, 0.5, 0.0, 1.0)
    changed = change({"images": tf.constant(image)}, tf.constant([1, 2]))["images"]
    grey = (image * [0.299, 0.587, 0.114]).sum(-1, keepdims=True)
    factor = (changed - grey) / (image - grey)
    np.testing.assert_allclose(factor, np.median(factor), rtol=2e-3)
    assert 0.5 < np.median(factor) < 1.5
    assert abs(np.median(factor) - 1) > 0.01


def test_photometric_ranges() -> None:
    grey = tf.fill((4, 4, 3), tf.constant(100, tf.uint8))
    bright = Photometric(0.2, 0.0, 0.0, 0.0, 1.0)
    values = [
        bright({"images": grey}, tf.constant([seed, 0]))["images"].numpy()
        for seed in range(60)
    ]
    assert all(v.dtype == np.uint8 and np.ptp(v) == 0 for v in values)
    levels = [int(v.flat[0]) for v in values]
    assert 80 <= min(levels) < 84
    assert 116 < max(levels) <= 120
    # Hue and saturation leave grey as it is; contrast leaves a flat image.
    other = Photometric(0.0, 0.4, 0.5, 0.2, 1.0)
    for seed in range(5):
        changed = other({"images": grey}, tf.constant([seed, 0]))["images"]
        np.testing.assert_allclose(changed, 100, atol=1)


def colored(masks: np.ndarray, values: list[int], padding: int) -> dict:
    """A sample in which visible object i has the grey value values[i]."""
    masks = masks.copy()
    for number in range(len(masks) - 1):  # later objects lie on top
        masks[number] &= ~masks[number + 1 :].any(0)
    sample = sample_of(masks, padding)
    image = np.zeros((*masks.shape[1:], 3), np.uint8)
    for mask, value in zip(masks, values, strict=True):
        image[mask] = value
    return {**sample, "images": tf.constant(image)}


@pytest.mark.parametrize("seed", range(8))
def test_copy_paste(seed: int) -> None:
    """What is visible of each object, of both images, is what its mask says."""
    masks = three_shapes()
    sample = colored(masks, [10, 20, 30], 4)
    donor = colored(masks[:, ::-1, ::-1].copy(), [110, 120, 130], 4)
    donor["gt_labels"] = tf.where(donor["gt_labels"] >= 0, donor["gt_labels"] + 10, -1)
    paste = tf.function(lambda seed: CopyPaste(1.0, 0.6)(sample, seed, donor))
    result = paste(tf.constant([seed, 0]))
    image = result["images"].numpy()[..., 0]
    channels = {
        label: image == value
        for label, value in zip(
            [0, 1, 2, 10, 11, 12], [10, 20, 30, 110, 120, 130], strict=True
        )
    }
    labels = result["gt_labels"].numpy()
    assert len(labels) == len(sample["gt_labels"])
    pasted = [label for label in labels if label >= 10]
    assert {label for label, mask in channels.items() if mask.sum() > 8} == set(
        labels[labels >= 0].tolist()
    )
    for row in np.flatnonzero(labels >= 0):
        shown = channels[int(labels[row])]
        np.testing.assert_allclose(result["gt_boxes"][row], extents(shown), atol=1.0)
    if seed == 0:
        assert pasted


def test_copy_paste_needs_room_and_masks() -> None:
    sample = colored(three_shapes(), [10, 20, 30], 0)
    # One row is free, in front: of three objects one is pasted.
    result = CopyPaste(1.0, 1.0)(sample, tf.constant([0, 0]), sample)
    assert (result["gt_labels"].numpy() >= 0).sum() <= 4
    del sample["gt_masks"]
    with pytest.raises(ValueError, match="CopyPaste needs gt_masks"):
        CopyPaste(1.0)(sample, tf.constant([0, 0]), sample)


def test_copy_paste_never() -> None:
    sample = colored(three_shapes(), [10, 20, 30], 4)
    result = CopyPaste(0.0, 1.0)(sample, tf.constant([0, 0]), sample)
    for name in sample:
        np.testing.assert_array_equal(result[name], sample[name])
