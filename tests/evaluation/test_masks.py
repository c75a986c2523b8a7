"""Pasting and RLE of result masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from kvision.evaluation import masks


def slow_paste(mask, box, size):
    """Bilinear value of the mask at the centre of every pixel, one at a time."""
    x1, y1, x2, y2 = box
    rows, columns = mask.shape
    values = np.zeros(size)
    for y, x in np.ndindex(size):
        u = (x + 0.5 - x1) / (x2 - x1) * columns - 0.5
        v = (y + 0.5 - y1) / (y2 - y1) * rows - 0.5
        for j, i in np.ndindex(rows, columns):
            values[y, x] += max(0, 1 - abs(u - i)) * max(0, 1 - abs(v - j)) * mask[j, i]
    return values


def test_a_full_mask_fills_the_pixels_whose_centres_its_box_holds():
    # x: centres 1.5, 2.5, 3.5 lie in [1.2, 4.4); y: centres 0.5, 1.5 in [0, 2).
    full = np.ones((1, 7, 7))
    pasted = masks.paste(full, np.array([[1.2, 0, 4.4, 2]]), (4, 6))[0]
    expected = np.zeros((4, 6), bool)
    # The corners fade: at (0.3, 0.5) pixels from a corner of cells 0.457 x 0.286 wide
    # the weights are above a half, so nothing is lost here.
    expected[0:2, 1:4] = True
    np.testing.assert_array_equal(pasted, expected)


def test_two_cells_meet_in_the_middle():
    # Cells 4 px wide: value 1 at centre x=2, 0 at x=6; pixel centres .5 .. 7.5.
    mask = np.array([[[1.0, 0.0]]])
    pasted = masks.paste(mask, np.array([[0, 0, 8, 1]]), (1, 8))[0, 0]
    np.testing.assert_array_equal(pasted, [1, 1, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("axis", [1, 2])
def test_a_pixel_on_the_threshold_belongs(axis):
    # Cells 3.5 px wide meet at 3.5: the centre of pixel 3, where the value is 0.5.
    for values, expected in (
        ([1.0, 0.0], [1, 1, 1, 1, 0, 0, 0]),
        ([0.0, 1.0], [0, 0, 0, 1, 1, 1, 1]),
    ):
        mask = np.expand_dims(np.array([values]), axis=3 - axis)
        box = np.array([[0, 0, 7, 1] if axis == 2 else [0, 0, 1, 7]])
        size = (1, 7) if axis == 2 else (7, 1)
        pasted = masks.paste(mask, box, size)[0].ravel()
        np.testing.assert_array_equal(pasted, expected)


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.8])
def test_paste_equals_the_slow_definition(threshold):
    rng = np.random.default_rng(0)
    for _ in range(20):
        size = tuple(rng.integers(1, 12, 2).tolist())
        mask = rng.random(rng.integers(1, 6, 2))
        start = rng.uniform(-4, 10, 2)
        box = np.concatenate([start, start + rng.uniform(0.5, 12, 2)])
        pasted = masks.paste(mask[None], box[None], size, threshold)[0]
        np.testing.assert_array_equal(pasted, slow_paste(mask, box, size) >= threshold)


def test_paste_equals_the_tensor_form():
    from kvision.ops.masks import paste_masks

    rng = np.random.default_rng(1)
    grids = rng.random((5, 28, 28)).astype(np.float32)
    start = rng.uniform(-5, 30, (5, 2))
    boxes = np.concatenate([start, start + rng.uniform(4, 30, (5, 2))], axis=1)
    values = np.asarray(paste_masks(grids, boxes.astype(np.float32), (33, 41)))
    clear = np.abs(values - 0.5) > 1e-4
    np.testing.assert_array_equal(
        masks.paste(grids, boxes, (33, 41))[clear], (values >= 0.5)[clear]
    )


@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    cells=st.integers(1, 9),
    whole=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_rles_equal_pycocotools_encoding_of_the_pasted_image(seed, size, cells, whole):
    rng = np.random.default_rng(seed)
    grids = (rng.random((3, cells, cells)) > 0.4).astype(np.float32)
    start = rng.uniform(-6, 16, (3, 2))
    boxes = np.concatenate([start, start + rng.uniform(0, 16, (3, 2))], axis=1)
    if whole:  # runs that go on from one column to the next
        boxes[:] = [0, 0, size[1], size[0]]
    pasted = masks.paste(grids, boxes, size)
    for mask, rle in zip(pasted, masks.rles(grids, boxes, size), strict=True):
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert rle == {"size": list(size), "counts": expected["counts"].decode()}
        np.testing.assert_array_equal(masks.decode(rle), mask)


def test_boxes_that_hold_no_pixel_give_empty_masks():
    boxes = np.array([[3, 3, 3, 8], [5, 5, 2, 2], [2.6, 2.6, 3.4, 3.4], [50, 0, 60, 9]])
    full = np.ones((4, 5, 5), np.float32)
    assert not masks.paste(full, boxes, (10, 10)).any()
    assert [coco_mask.area(rle) for rle in masks.rles(full, boxes, (10, 10))] == [0] * 4
    assert all(patch.mask.size == 0 for patch in masks.patches(full, boxes, (10, 10)))


def test_no_instances():
    none = np.zeros((0, 28, 28)), np.zeros((0, 4))
    assert masks.paste(*none, (5, 6)).shape == (0, 5, 6)
    assert masks.rles(*none, (5, 6)) == []


def test_bytes_mean_the_same_as_floats():
    rng = np.random.default_rng(2)
    grids = rng.integers(0, 256, (2, 8, 8)).astype(np.uint8)
    boxes = np.array([[1, 1, 9, 9], [0, 2, 14, 7.5]])
    np.testing.assert_array_equal(
        masks.paste(grids, boxes, (12, 16)), masks.paste(grids / 255, boxes, (12, 16))
    )


def test_crop_of_a_rectangle_by_hand():
    mask = np.zeros((4, 4))
    mask[1:3, 0:3] = 1
    # Two cells of 2 x 2 pixels along each side: 2, 1, 2, 1 of 4 pixels are covered.
    np.testing.assert_allclose(
        masks.crop(mask, np.array([0, 0, 4, 4]), 2), [[0.5, 0.25], [0.5, 0.25]]
    )
    assert not masks.crop(mask, np.array([7, 7, 9, 9]), 2).any()
    # A box that reaches one pixel out of the image on the left.
    np.testing.assert_allclose(
        masks.crop(mask, np.array([-1, 1, 1, 2]), 2), [[0, 1]] * 2
    )
    # A box over half a pixel of column 2 and of column 3.
    np.testing.assert_allclose(masks.crop(mask, np.array([2.5, 1, 3.5, 2]), 1), [[0.5]])


def test_paste_gives_back_what_was_cropped():
    y, x = np.mgrid[:60, :80]
    disc = (x - 40.2) ** 2 / 30**2 + (y - 30.7) ** 2 / 22**2 < 1
    box = np.array([10, 8, 71, 54])
    back = masks.paste(masks.crop(disc, box, 28)[None], box[None], disc.shape)[0]
    assert (back != disc).sum() < 0.01 * disc.sum()


def test_a_large_photo_costs_little_memory():
    import tracemalloc

    boxes = np.tile([100.0, 200.0, 900.0, 800.0], (100, 1))
    grids = np.ones((100, 28, 28), np.float32)
    tracemalloc.start()
    encoded = masks.rles(grids, boxes, (3000, 4000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(encoded) == 100
    assert peak < 20e6  # a full-size stack would be 1.2 gigabytes


@pytest.mark.parametrize(
    ("grids", "boxes", "message"),
    [
        (np.ones((2, 3, 3)), np.ones((1, 4)), "2 masks for 1 boxes"),
        (np.ones((3, 3)), np.ones((1, 4)), r"masks \(3, 3\)"),
        (np.ones((1, 3, 3)), np.ones((1, 5)), r"boxes \(1, 5\)"),
        (np.ones((2, 3, 3)), [[0, 0, 1, 1], [0, np.nan, 1, 1]], "Box 1 is not finite"),
    ],
)
def test_wrong_input_is_refused(grids, boxes, message):
    with pytest.raises(ValueError, match=message):
        masks.rles(grids, boxes, (4, 4))


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, np.nan])
def test_a_threshold_that_nothing_can_cross_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold must be in"):
        masks.paste(np.ones((1, 3, 3)), np.array([[0, 0, 3, 3]]), (4, 4), threshold)
