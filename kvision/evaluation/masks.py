"""Instance masks of results: grids over boxes -> pixels of the photo, or COCO's RLE.

A mask stays a small grid over its box until somebody asks for pixels, and then only
the pixels inside its box are computed: 100 masks on a 12-megapixel photo are a few
megabytes as RLE and more than a gigabyte as full images.

Shape letters: N instances, h w cells of a grid, H W pixels of an image.
"""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from kvision.evaluation.rle import encode

__all__ = ["Patch", "crop", "decode", "paste", "patches", "rles"]

Array = np.ndarray
RLE = dict[str, Any]

# Instances for which what does not depend on the size of a patch is done at once.
_TOGETHER = 32


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
    masks, boxes = _checked(masks, boxes)
    for some in _chunks(len(masks)):
        for left, top, columns in _by_columns(
            masks[some], boxes[some], size, threshold
        ):
            yield Patch(top, left, columns.T)


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
    masks, boxes = _checked(masks, boxes)
    encoded: list[RLE] = []
    for some in _chunks(len(masks)):
        encoded += encode(
            [
                _edges(left, top, pixels, int(size[0]))
                for left, top, pixels in _by_columns(
                    masks[some], boxes[some], size, threshold
                )
            ],
            size,
        )
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


def _checked(masks: Array, boxes: Array) -> tuple[Array, Array]:
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
    if masks.dtype == np.uint8:
        return masks.astype(np.float32) / 255.0, boxes
    return masks.astype(np.float32, copy=False), boxes


def _chunks(number: int) -> Iterator[slice]:
    return (slice(i, i + _TOGETHER) for i in range(0, number, _TOGETHER))


def _by_columns(
    masks: Array, boxes: Array, size: tuple[int, int], threshold: float
) -> Iterator[tuple[int, int, Array]]:
    """Make (left, top, pixels) with pixels (columns, rows): RLE's order.

    Interpolation is a gather and a product along each axis. Matrix products would do
    the same, but BLAS threads fight over patches as small as these.
    """
    number, rows, columns = masks.shape
    grids = np.zeros((number, columns + 2, rows + 2), np.float32)
    grids[:, 1:-1, 1:-1] = masks.transpose(0, 2, 1)
    steps = np.diff(grids, axis=1)
    across = _positions(boxes[:, 0], boxes[:, 2], columns, size[1], threshold)
    down = _positions(boxes[:, 1], boxes[:, 3], rows, size[0], threshold)
    for grid, step, (left, x, part_x), (top, y, part_y) in zip(
        grids, steps, across, down, strict=True
    ):
        lines = step[x]
        lines *= part_x[:, None]
        lines += grid[x]
        values = (lines[:, 1:] - lines[:, :-1])[:, y]
        values *= part_y
        values += lines[:, y]
        yield left, top, values >= threshold


def _positions(
    starts: Array, ends: Array, cells: int, pixels: int, threshold: float
) -> list[tuple[int, Array, Array]]:
    """Locate the pixels of boxes along one axis between the centres of cells.

    A mask fades to 0 over half a cell beyond its outermost centres, which are half a
    cell inside the box: only below a threshold of 0.5 can pixels outside count.

    Returns:
        For each box the first pixel; for each of its pixels the cell, in a grid with an
        empty cell added at both ends, whose centre lies before it; how far it is to the
        next one (0..1).
    """
    extents = ends - starts
    margins = max(0.0, 0.5 - threshold) * extents / cells
    firsts = np.maximum(0, np.ceil(starts - margins - 0.5)).astype(np.intp)
    lasts = np.minimum(pixels - 1, np.floor(ends + margins - 0.5)).astype(np.intp)
    counts = np.where(extents > 0, np.maximum(lasts - firsts + 1, 0), 0)
    stops = np.cumsum(counts)
    box = np.repeat(np.arange(len(starts)), counts)
    pixel = np.arange(len(box)) - (stops - counts)[box] + firsts[box]
    scales = cells / np.where(extents > 0, extents, 1.0)
    position = (pixel + 0.5 - starts[box]) * scales[box] + 0.5
    cell = np.clip(position.astype(np.intp), 0, cells)
    fraction = (position - cell).astype(np.float32)
    return [
        (first, cell[stop - count : stop], fraction[stop - count : stop])
        for first, count, stop in zip(
            firsts.tolist(), counts.tolist(), stops.tolist(), strict=True
        )
    ]


def _edges(left: int, top: int, pixels: Array, height: int) -> Array:
    """Return where a patch given as (columns, rows) changes, column by column."""
    columns, rows = pixels.shape
    # One empty pixel ahead of everything and one after each column end every run.
    flat = np.zeros(1 + columns * (rows + 1), bool)
    flat[1:].reshape(columns, rows + 1)[:, :-1] = pixels
    (change,) = (flat[1:] != flat[:-1]).nonzero()
    column = change // (rows + 1)
    edges = change + column * (height - rows - 1) + (left * height + top)
    if rows == height:
        # A run that reaches the bottom goes on at the top of the next column.
        (joined,) = (edges[1:] == edges[:-1]).nonzero()
        edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    return edges


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
