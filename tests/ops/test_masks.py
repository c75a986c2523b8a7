"""Masks over boxes: cropped for training, pasted into images."""

import numpy as np
import pytest

from kvision.ops.masks import crop_masks, paste_masks, paste_masks_integer
from tests.ops.modes import assert_modes_agree, to_numpy
from tests.parity import numpy_reference as reference


def smooth_masks(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Blobs without sharp edges, in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    phase = rng.uniform(0, 6, (count, 2, 1, 1))
    masks = 0.5 + 0.5 * np.sin(5 * x + phase[:, 0]) * np.cos(4 * y + phase[:, 1])
    return masks.astype(np.float32)


def test_crop_to_its_own_box_at_its_own_size_is_the_mask() -> None:
    masks = np.random.default_rng(0).random((3, 14, 14), np.float32)
    boxes = np.array([[3, 5, 17, 19], [0.3, 7.7, 50.2, 60.1], [9, 9, 10, 12]], "f4")
    np.testing.assert_allclose(
        to_numpy(crop_masks(masks, boxes, boxes, 14)), masks, atol=1e-5
    )


# The left half of a 2 x 2 mask over (0, 0, 4, 4), seen by a RoI one box to the right:
# its left half covers the right (empty) half of the mask, its right half is outside.
def test_outside_of_the_mask_is_empty() -> None:
    mask = np.ones((1, 2, 2), np.float32)
    box = np.array([[0, 0, 4, 4]], np.float32)
    roi = np.array([[2, 0, 6, 4]], np.float32)
    cropped = to_numpy(crop_masks(mask, box, roi, 4))[0]
    np.testing.assert_allclose(cropped, [[1, 1, 0, 0]] * 4)


def test_half_of_a_mask_fills_the_crop() -> None:
    mask = np.zeros((1, 4, 4), np.float32)
    mask[0, :, 2:] = 1
    box, roi = np.array([[[0, 0, 8, 8]]], "f4"), np.array([[[4, 0, 8, 8]]], "f4")
    np.testing.assert_allclose(
        to_numpy(crop_masks(mask[None], box, roi, 2))[0, 0, :, 1], 1
    )


def test_crop_equals_the_slow_reference_in_every_mode() -> None:
    masks = np.random.default_rng(1).random((6, 9, 12), np.float32)
    boxes = np.array([[10, 20, 50, 44]] * 6, np.float32)
    shift = np.random.default_rng(2).uniform(-15, 15, (6, 4))
    rois = (boxes + shift).astype("f4")
    cropped = assert_modes_agree(
        lambda m, b, r: crop_masks(m, b, r, 7), masks, boxes, rois, atol=1e-5
    )
    expected = [
        reference.crop_mask(*row, 7) for row in zip(masks, boxes, rois, strict=True)
    ]
    np.testing.assert_allclose(cropped, expected, atol=1e-4)
    assert 0.1 < (cropped == 0).mean() < 0.9


def test_empty_boxes_crop_to_finite_values() -> None:
    masks, empty = np.ones((2, 4, 4), np.float32), np.zeros((2, 4), np.float32)
    full = np.array([[0, 0, 5, 5]] * 2, np.float32)
    for boxes, rois in ((empty, full), (full, empty), (empty, empty)):
        assert np.isfinite(to_numpy(crop_masks(masks, boxes, rois, 3))).all()


def test_full_mask_covers_exactly_the_pixels_inside() -> None:
    """Pixels whose centre is inside the box by a quarter of a mask cell and more."""
    masks = np.ones((1, 28, 28), np.float32)
    boxes = np.array([[3, 2, 9, 7]], np.float32)
    pasted = to_numpy(paste_masks(masks, boxes, (10, 12)))[0] >= 0.5
    expected = np.zeros((10, 12), bool)
    expected[2:7, 3:9] = True
    np.testing.assert_array_equal(pasted, expected)


def test_fractional_box_takes_pixels_by_their_centre() -> None:
    masks = np.ones((1, 28, 28), np.float32)
    boxes = np.array([[2.4, 2.6, 5.4, 5.6]], np.float32)  # centres 2.5..4.5, 3.5..5.5
    pasted = to_numpy(paste_masks(masks, boxes, (8, 8)))[0] >= 0.5
    assert np.flatnonzero(pasted.any(0)).tolist() == [2, 3, 4]
    assert np.flatnonzero(pasted.any(1)).tolist() == [3, 4, 5]


def test_paste_equals_the_slow_reference_in_every_mode() -> None:
    masks = np.random.default_rng(3).random((5, 6, 8), np.float32)
    boxes = np.array(
        [
            [2, 3, 12, 15],
            [-6, -5, 9.5, 8.25],
            [10.5, 11, 40, 30],
            [5, 5, 5.4, 5.3],
            [30, 30, 40, 40],
        ],
        np.float32,
    )
    pasted = assert_modes_agree(
        lambda m, b: paste_masks(m, b, (18, 20)), masks, boxes, atol=1e-4
    )
    expected = [
        reference.paste_mask(m, b, (18, 20)) for m, b in zip(masks, boxes, strict=True)
    ]
    np.testing.assert_allclose(pasted, expected, atol=2e-4)
    assert (pasted[4] == 0).all()


def test_mask_is_transposed_with_its_box() -> None:
    masks = np.random.default_rng(4).random((1, 7, 7), np.float32)
    box = np.array([[2, 5, 14, 9]], np.float32)
    pasted = to_numpy(paste_masks(masks, box, (16, 16)))[0]
    turned = paste_masks(masks.transpose(0, 2, 1), box[:, [1, 0, 3, 2]], (16, 16))
    np.testing.assert_allclose(to_numpy(turned)[0], pasted.T, atol=1e-6)


@pytest.mark.parametrize("paste", [paste_masks, paste_masks_integer])
def test_padding_rows_paste_finite_values(paste: object) -> None:
    pasted = to_numpy(paste(np.zeros((2, 4, 4), "f4"), np.zeros((2, 4), "f4"), (8, 8)))
    np.testing.assert_array_equal(pasted, 0)


def test_cropping_a_pasted_mask_gives_it_back() -> None:
    """Paste a smooth 14 x 14 mask over 80 px, read the image as a mask, crop it."""
    masks = smooth_masks(4, 14)
    boxes = np.array(
        [[8, 8, 88, 88], [20, 4, 92, 94], [4, 30, 84, 90], [1, 1, 95, 95]], "f4"
    )
    images = paste_masks(masks, boxes, (96, 96))
    whole = np.array([[0, 0, 96, 96]] * 4, np.float32)
    again = to_numpy(crop_masks(images, whole, boxes, 14))
    inner = (slice(None), slice(1, -1), slice(1, -1))  # the rim fades when pasted
    np.testing.assert_allclose(again[inner], masks[inner], atol=0.02)


# torchvision: the mask gets a border of one empty cell, its box grows with it and is
# cut to whole pixels. 2 x 2 cells over (2, 2, 6, 6) become 4 x 4 over (0, 0, 8, 8),
# which counts 9 px.
def test_integer_paste_by_hand() -> None:
    masks = np.ones((1, 2, 2), np.float32)
    boxes = np.array([[2, 2, 6, 6]], np.float32)
    pasted = to_numpy(paste_masks_integer(masks, boxes, (10, 10)))[0]
    position = np.clip((np.arange(9) + 0.5) / 9 * 4 - 0.5, 0, 3)
    profile = np.interp(position, range(4), [0, 1, 1, 0])
    np.testing.assert_allclose(pasted[:9, :9], np.outer(profile, profile), atol=1e-6)
    np.testing.assert_array_equal(pasted[9], 0)


def test_integer_paste_is_the_same_in_every_mode() -> None:
    boxes = np.array([[2.5, 3.5, 12, 15], [-6, -5, 9.5, 8.25], [7, 7, 7, 7]], "f4")
    assert_modes_agree(
        lambda m, b: paste_masks_integer(m, b, (18, 20)), smooth_masks(3, 8), boxes
    )
