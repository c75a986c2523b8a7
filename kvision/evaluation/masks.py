"""Instance masks of results: grids over boxes -> pixels of the photo, or COCO's RLE.

A mask stays a small grid over its box until somebody asks for pixels, and then only
the pixels inside its box are computed: 100 masks on a 12-megapixel photo are a few
megabytes as RLE and more than a gigabyte as full images.

Shape letters: N instances, h w cells of a grid, H W pixels of an image.
"""

import itertools
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from kvision.evaluation.crossings import Crossings, Frames, crossings, frames
from kvision.evaluation.rle import encode

__all__ = ["Patch", "crop", "decode", "paste", "patches", "rles"]

Array = np.ndarray
RLE = dict[str, Any]

# Columns of pixels of the instances that are worked on at once.
_TOGETHER = 8192


class Patch(NamedTuple):
    """The pixels of one instance inside its box.

    Attributes:
        top: row of the patch's first pixel in the image.
        left: column of the patch's first pixel in the image.
        mask: (h, w) bool array.
    """

    top: int
    left: int
    mask: Array


def paste(
    masks: Array, boxes: Array, size: tuple[int, int], threshold: float = 0.5
) -> Array:
    """Lay masks over their boxes in full-size images, exact to half a pixel.

    Args:
        masks: (N, h, w) array: floats in [0, 1] or uint8 in 0..255.
        boxes: (N, 4) array, xyxy in pixels; parts outside the image are cut off.
        size: (height, width) of the image in pixels.
        threshold: a pixel belongs to the instance from this value on.

    Returns:
        (N, height, width) bool array. It costs N * height * width bytes: see
        `patches` and `rles` for large photos.

    Source: the arithmetic of detectron2 `layers/mask_ops.py`.
    """
    full = np.zeros((len(boxes), *size), bool)
    for image, patch in zip(full, patches(masks, boxes, size, threshold), strict=True):
        rows, columns = patch.mask.shape
        image[patch.top : patch.top + rows, patch.left : patch.left + columns] = (
            patch.mask
        )
    return full


def patches(
    masks: Array, boxes: Array, size: tuple[int, int], threshold: float = 0.5
) -> Iterator[Patch]:
    """Make the pixels of each instance inside its box, one instance at a time.

    Args:
        masks: (N, h, w) array: floats in [0, 1] or uint8 in 0..255.
        boxes: (N, 4) array, xyxy in pixels.
        size: (height, width) of the image in pixels.
        threshold: a pixel belongs to the instance from this value on.

    Yields:
        One `Patch` per instance, empty where the box holds no pixel centre.
    """
    for inside, found in _parts(masks, boxes, size, threshold):
        firsts = np.searchsorted(found.instance, np.arange(len(inside.left) + 1))
        for number, frame in enumerate(zip(*inside, strict=True)):
            own = slice(firsts[number], firsts[number + 1])
            yield _patch(found.column[own], found.row[own], *frame)


def rles(
    masks: Array, boxes: Array, size: tuple[int, int], threshold: float = 0.5
) -> list[RLE]:
    """Encode instances as COCO's compressed RLE without any full-size image.

    Args:
        masks: (N, h, w) array: floats in [0, 1] or uint8 in 0..255.
        boxes: (N, 4) array, xyxy in pixels.
        size: (height, width) of the image in pixels.
        threshold: a pixel belongs to the instance from this value on.

    Returns:
        N dicts `{"size": [height, width], "counts": str}`, as in result files.
    """
    encoded: list[RLE] = []
    for inside, found in _parts(masks, boxes, size, threshold):
        place = found.column * size[0] + found.row
        encoded += encode(found.instance, place, len(inside.left), size)
    return encoded


def crop(mask: Array, box: Array, size: int) -> Array:
    """Average a full-size mask over the cells of a grid laid on a box.

    Args:
        mask: (H, W) bool or 0/1 array.
        box: (4,) array, xyxy in pixels.
        size: number of cells m along each side of the box.

    Returns:
        (m, m) float32 array in [0, 1]: the share of each cell that the mask covers.
        `paste` is its inverse but for what m cells cannot hold.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    top, left = max(0, int(y1)), max(0, int(x1))
    inside = np.asarray(mask)[top : int(np.ceil(y2)), left : int(np.ceil(x2))]
    if not inside.size:
        return np.zeros((size, size), np.float32)
    rows = _cell_means(inside.astype(np.float32), y1 - top, y2 - top, size)
    return _cell_means(rows.T, x1 - left, x2 - left, size).T


def decode(rle: RLE) -> Array:
    """Decode COCO's compressed RLE.

    Args:
        rle: dict with `size` and `counts`.

    Returns:
        (H, W) bool array.
    """
    with warnings.catch_warnings():
        # pycocotools 2.0.11 does not take NumPy 2's copy argument.
        warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
        return coco_mask.decode(rle).astype(bool)


def _checked(masks: Array, boxes: Array, threshold: float) -> tuple[Array, Array]:
    """Return masks as (N, h, w) floats in [0, 1] and boxes as (N, 4) float64."""
    masks, boxes = np.asarray(masks), np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or masks.ndim != 3:
        raise ValueError(
            "Expected masks of shape (N, h, w) and boxes of shape (N, 4). "
            f"Received: masks {masks.shape}, boxes {boxes.shape}"
        )
    if len(masks) != len(boxes):
        raise ValueError(f"Received {len(masks)} masks for {len(boxes)} boxes")
    if not np.isfinite(boxes).all():
        row = int(np.flatnonzero(~np.isfinite(boxes).all(axis=1))[0])
        raise ValueError(f"Box {row} is not finite: {boxes[row].tolist()}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1]. Received: {threshold}")
    if masks.dtype == np.uint8:
        return masks.astype(np.float32) / 255.0, boxes
    return masks.astype(np.float32, copy=False), boxes


def _parts(
    masks: Array, boxes: Array, size: tuple[int, int], threshold: float
) -> Iterator[tuple[Frames, Crossings]]:
    """Find the pixels of some instances at a time: memory stays small."""
    masks, boxes = _checked(masks, boxes, threshold)
    inside = frames(boxes, masks.shape[1:], size, threshold)
    part = np.cumsum(inside.right - inside.left) // _TOGETHER
    bounds = [0, *np.flatnonzero(np.diff(part)) + 1, len(masks)]
    for first, last in itertools.pairwise(bounds):
        some = slice(first, last)
        frame = Frames(*(sides[some] for sides in inside))
        yield frame, crossings(masks[some], boxes[some], frame, threshold)


def _patch(
    column: Array, row: Array, left: int, top: int, right: int, bottom: int
) -> Patch:
    """Fill the pixels between crossings, which lie in ascending order."""
    width, height = right - left, bottom - top
    # A column has one place more than pixels: what ends there is closed there.
    changes = np.bincount(
        (column - left) * (height + 1) + row - top, minlength=width * (height + 1)
    )
    pixels = np.bitwise_xor.accumulate(changes.astype(np.uint8) & 1).astype(bool)
    return Patch(top, left, pixels.reshape(width, height + 1)[:, :-1].T)


def _cell_means(values: Array, start: float, end: float, cells: int) -> Array:
    """Average (P, Q) pixels over cells of their first axis -> (cells, Q).

    A mean is a difference of the integral, which is linear between edges of pixels;
    beyond the image the values are 0.
    """
    integral = np.zeros((len(values) + 1, values.shape[1]), np.float32)
    np.cumsum(values, axis=0, out=integral[1:])
    edges = np.clip(np.linspace(start, end, cells + 1), 0, len(values))
    pixel = np.minimum(edges.astype(np.intp), len(values) - 1)
    fraction = (edges - pixel).astype(np.float32)[:, None]
    at_edges = integral[pixel] + values[pixel] * fraction
    return np.diff(at_edges, axis=0) * (cells / max(end - start, 1e-6))
