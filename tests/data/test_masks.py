"""Segmentations: what is refused, and that what is accepted is measured rightly."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from kvision.data.masks import (
    SegmentationError,
    crop_mask,
    crop_pixels,
    decompress,
    mask_extents,
    parse_segmentation,
)

SIZE = (20, 30)
SQUARE = [4, 2, 10, 2, 10, 8, 4, 8]


def blob(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.random(size) < random.random()


def encode(mask: np.ndarray) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths column by column, one pixel at a time."""
    counts, current = [0], False
    for value in mask.T.ravel():
        if value != current:
            counts.append(0)
            current = value
        counts[-1] += 1
    return counts


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40))
def test_three_forms_of_rle_are_one(seed: int, height: int, width: int) -> None:
    mask = blob(seed, (height, width))
    rle = encode(mask)
    np.testing.assert_array_equal(decompress(rle["counts"]), runs(mask))
    text = {"size": [height, width], "counts": rle["counts"].decode()}
    plain = {"size": [height, width], "counts": runs(mask)}
    for form in (rle, text, plain):
        parsed = parse_segmentation(form, (height, width))
        assert parsed.counts == rle["counts"]
        x, y, w, h = coco_mask.toBbox(rle)
        if mask.any():
            assert parsed.box == (x, y, x + w, y + h)
        assert parsed.is_empty() == (not mask.any())


def test_extents_of_a_run_around_the_corner() -> None:
    # Pixels (1, 3), (1, 4) and (2, 0): one run, two columns of 5.
    assert mask_extents(np.array([8, 3, 9]), (5, 4)) == (1.0, 0.0, 3.0, 5.0)
    assert mask_extents(np.array([20]), (5, 4)) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("code", "value", "message"),
    [
        ("B11", [[1, 2, 3, 4]], "4 numbers"),
        ("B11", [[1, 2, 3, 4, 5, 6, 7]], "7 numbers"),
        ("B11", [["a", 2, 3, 4, 5, 6]], "no polygon of numbers"),
        ("B11", [[[1, 2], [3, 4], [5, 6]]], "no polygon of numbers"),
        ("B11", "poly", "no list of polygons"),
        ("B12", [[1, 2, 3, float("nan"), 5, 6]], "not finite"),
        ("B12", [[1, 2, 3, float("inf"), 5, 6]], "not finite"),
        ("B12", [[1, 2, 3, 1e9, 5, 6]], "far outside the image of 30 x 20"),
        ("B12", [[1, 2, 3, -1e9, 5, 6]], "far outside"),
        ("B12", [[1.0] * 2_000_002], "1000001 points"),
        ("B13", {"size": [30, 20], "counts": [600]}, r"size \[30, 20\]"),
        ("B13", {"size": [20, 30], "counts": [599]}, "sum to 599.*600 pixels"),
        ("B13", {"size": [20, 30], "counts": [700, -100]}, "sum"),
        ("B13", {"size": [20, 30], "counts": [0.5]}, "no RLE counts"),
        ("B13", {"size": [20, 30], "counts": "garbage!"}, "RLE"),
        ("B13", {"size": [20, 30], "counts": "ooooooooooooooo"}, "RLE"),
        ("B13", {"size": [20, 30], "counts": "é"}, "not ASCII"),
        ("B13", {"size": [20, 30], "counts": ""}, "RLE"),
        ("B13", {"size": [20, 30]}, "no RLE counts"),
        ("B13", {"counts": [600]}, "size None"),
    ],
)
def test_malformed_segmentations(code: str, value: Any, message: str) -> None:
    with pytest.raises(SegmentationError, match=message) as caught:
        parse_segmentation(value, SIZE)
    assert caught.value.code == code


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40))
def test_garbage_counts_never_reach_c_code(data: bytes) -> None:
    try:
        parsed = parse_segmentation({"size": list(SIZE), "counts": data}, SIZE)
    except SegmentationError:
        return
    # What is accepted is a mask of the image.
    rle = {"size": list(SIZE), "counts": parsed.counts}
    assert coco_mask.decode(rle).shape == SIZE


def test_crop_by_hand() -> None:
    """Half a pixel of margin at the left, none above: 3 pixels in 2 cells."""
    pixels = np.array([[0, 1, 1], [1, 0, 1]])
    # Cells of 1.25 x 1 pixels over x 0.5..3, y 0..2.
    expected = np.array(
        [[0.75 / 1.25, 1.25 / 1.25], [0.5 / 1.25, 1.0 / 1.25]],
    )
    crop = crop_pixels(pixels, (0.5, 0.0, 3.0, 2.0), 2)
    np.testing.assert_array_equal(crop, np.rint(expected * 255))


def slow_crop(mask: np.ndarray, box: np.ndarray, cells: int) -> np.ndarray:
    """Count, on a fine lattice of points, which lie in covered pixels."""
    fine = 40
    x1, y1, x2, y2 = box
    steps = (np.arange(cells * fine) + 0.5) / (cells * fine)
    columns = np.floor(x1 + (x2 - x1) * steps).astype(int)
    rows = np.floor(y1 + (y2 - y1) * steps).astype(int)
    points = mask[np.ix_(rows, columns)].reshape(cells, fine, cells, fine)
    return points.mean((1, 3)) * 255


@pytest.mark.parametrize("seed", range(6))
def test_crops_against_counting(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = blob(seed)
    x, y = np.sort(random.random((2, 2)) * [[SIZE[1]], [SIZE[0]]], axis=1)
    box = np.array([x[0], y[0], x[1], y[1]], np.float32)
    segmentation = parse_segmentation(encode(mask), SIZE)
    for cells in (3, 14):
        np.testing.assert_allclose(
            crop_mask(segmentation, box, cells), slow_crop(mask, box, cells), atol=8
        )


@pytest.mark.parametrize("shift", [0.0, 0.3, 7.4])
def test_polygon_window_equals_whole_raster(shift: float) -> None:
    """Rasterising in the window of a box gives the pixels of the whole image."""
    random = np.random.default_rng(1)
    polygons = [
        (np.array(SQUARE) + shift + random.random(8) * 3).tolist(),
        (np.array(SQUARE) * 0.5 + random.random(8)).tolist(),
    ]
    whole = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *SIZE)))
    segmentation = parse_segmentation(polygons, SIZE)
    box = np.array([3, 2, 17, 15], np.float32)
    crop = crop_mask(segmentation, box, 1)
    assert crop[0, 0] == round(whole[2:15, 3:17].mean() * 255)
    np.testing.assert_array_equal(
        crop_mask(segmentation, np.array([3, 2, 17, 16], np.float32), 14),
        crop_pixels(whole[2:16, 3:17], (0, 0, 14, 14), 14),
    )


def test_thin_polygons_are_empty() -> None:
    thin = parse_segmentation([[4.1, 2.1, 4.2, 2.1, 4.2, 8.0]], SIZE)
    assert thin.is_empty()
    assert not parse_segmentation([SQUARE], SIZE).is_empty()
    line = parse_segmentation([[4, 2, 4, 5, 4, 8]], SIZE)
    assert line.is_empty()
