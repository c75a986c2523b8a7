"""Where the pixels of masks on grids begin and end, column by column.

Along a column of pixels a mask is linear between the centres of its cells, so what is
computed are the values at those centres and the places between them at which the
threshold is crossed: fewer numbers than pixels, and of all masks at once.

Shape letters: N instances, h w cells of a grid, P columns of pixels of all boxes, X
crossings.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Crossings", "Frames", "crossings", "frames"]

Array = np.ndarray

# Pixels; what is as near to the threshold is on it. Sums of positions are as exact.
_NEAR = 1e-6


class Frames(NamedTuple):
    """The pixels of boxes: from the first up to, but without, the last.

    Attributes:
        left: (N,) int64 array of columns.
        top: (N,) int64 array of rows.
        right: (N,) int64 array.
        bottom: (N,) int64 array.
    """

    left: Array
    top: Array
    right: Array
    bottom: Array


class Crossings(NamedTuple):
    """Where pixels of an instance begin and, one further, where they end, in turn.

    Attributes:
        instance: (X,) int64 array, ascending.
        column: (X,) int64 array, ascending for each instance: of the image.
        row: (X,) int64 array, ascending for each column: of the image, up to the row
            after the last of the frame. A run of no pixel begins where it ends.
    """

    instance: Array
    column: Array
    row: Array


def frames(
    boxes: Array, cells: tuple[int, int], size: tuple[int, int], threshold: float
) -> Frames:
    """Find the pixels of boxes that can belong to an instance.

    A mask fades to 0 over half a cell beyond its outermost centres, which are half a
    cell inside the box: only below a threshold of 0.5 can pixels outside count.

    Args:
        boxes: (N, 4) float64 array, xyxy in pixels.
        cells: (h, w) of the grids.
        size: (height, width) of the image in pixels.
        threshold: a pixel belongs to the instance from this value on.

    Returns:
        Frames, empty where a box holds no pixel's centre.
    """
    starts, extents = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    margins = max(0.0, 0.5 - threshold) * extents / np.array(cells[::-1])
    firsts = np.maximum(0, np.ceil(starts - margins - 0.5))
    stops = np.minimum(size[::-1], np.floor(boxes[:, 2:] + margins - 0.5) + 1)
    stops = np.where(extents > 0, np.maximum(stops, firsts), firsts)
    (left, top), (right, bottom) = firsts.T.astype(int), stops.T.astype(int)
    return Frames(left, top, right, bottom)


def crossings(
    masks: Array, boxes: Array, inside: Frames, threshold: float
) -> Crossings:
    """Find where the columns of pixels of instances begin and end.

    Args:
        masks: (N, h, w) float32 array in [0, 1].
        boxes: (N, 4) float64 array, xyxy in pixels.
        inside: the pixels that count.
        threshold: above 0; a pixel belongs to the instance from this value on.

    Returns:
        An even number of crossings in each column.
    """
    number, rows, columns = masks.shape
    grids = np.zeros((number, columns + 2, rows + 2), np.float32)
    grids[:, 1:-1, 1:-1] = masks.transpose(0, 2, 1)
    extents = np.where(boxes[:, 2:] > boxes[:, :2], boxes[:, 2:] - boxes[:, :2], 1.0)
    instance, column = _columns(inside)
    scale = columns / extents[:, 0]
    lines = _lines(
        grids, instance, (column + 0.5 - boxes[instance, 0]) * scale[instance]
    )
    lines, length = lines.ravel(), rows + 2
    # Every line begins and ends outside, so that they can stand in one row.
    is_in = lines >= threshold
    places = np.flatnonzero(is_in[1:] != is_in[:-1])
    line = places // length
    before, after = lines[places].astype(float), lines[places + 1].astype(float)
    # Centres of cells lie at 0.5, 1.5, ...; the added cell ahead of them at -0.5.
    row = places - line * length - 0.5 + (threshold - before) / (after - before)
    instance, column = instance[line], column[line]
    row = row * (extents[:, 1] / rows)[instance] + (boxes[:, 1] - 0.5)[instance]
    # What has begun ends next: by turns the first pixel inside and the first outside.
    row[::2] = np.ceil(row[::2] - _NEAR)
    row[1::2] = np.floor(row[1::2] + _NEAR) + 1
    row = np.clip(row.astype(int), inside.top[instance], inside.bottom[instance])
    return Crossings(instance, column, row)


def _columns(inside: Frames) -> tuple[Array, Array]:
    """Number the columns of pixels: whose they are, and which of the image."""
    counts = inside.right - inside.left
    instance = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts - inside.left
    return instance, np.arange(len(instance)) - before[instance]


def _lines(grids: Array, instance: Array, position: Array) -> Array:
    """Interpolate the columns of grids (N, w + 2, h + 2), the outermost cells added."""
    width = grids.shape[1]
    cell = np.clip((position + 0.5).astype(int), 0, width - 2)
    fraction = (position + 0.5 - cell).astype(np.float32)[:, None]
    flat = grids.reshape(-1, grids.shape[2])
    first = instance * width + cell
    low, high = flat[first], flat[first + 1]
    high -= low
    high *= fraction
    high += low
    return high
