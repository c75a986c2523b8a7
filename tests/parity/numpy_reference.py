"""Slow second implementations of the detection ops, in numpy loops and float64.

Written from the definitions, not from kvision's code: one box, one sample, one pixel at
a time. Tests compare the fast forms with them.
"""

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray


def box_area(box: Array) -> float:
    return max(0.0, float(box[2]) - float(box[0])) * max(
        0.0, float(box[3]) - float(box[1])
    )


def box_iou(a: Array, b: Array) -> float:
    """Overlap of two boxes; 0 if both are empty."""
    corners = [max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]
    shared = box_area(np.asarray(corners, np.float64))
    union = box_area(a) + box_area(b) - shared
    return shared / union if union > 0 else 0.0


def iou_matrix(first: Array, second: Array) -> Array:
    return np.array([[box_iou(a, b) for b in second] for a in first])


def match(
    objects: Array, candidates: Array, positive: float, negative: float, low: bool
) -> list[tuple[int, int]]:
    """For each candidate (index of its best object, 1 / 0 / -1)."""
    table = iou_matrix(objects, candidates)
    result = []
    for column in table.T:
        best = int(np.argmax(column))
        value = column[best]
        verdict = 1 if value >= positive else 0 if value < negative else -1
        result.append([best, verdict])
    if low:
        for row in table:
            if row.max() > 0:
                for j in np.flatnonzero(row == row.max()):
                    result[j][1] = 1
    return [tuple(pair) for pair in result]


def nms(boxes: Array, scores: Array, threshold: float) -> list[int]:
    """Greedy suppression; equal scores in index order."""
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    for i in order:
        if all(box_iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def grouped_nms(
    boxes: Array, scores: Array, groups: Array, threshold: float, limit: int
) -> list[int]:
    """Suppression of each group alone, then the best of all."""
    kept = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        kept += [int(rows[k]) for k in nms(boxes[rows], scores[rows], threshold)]
    return sorted(kept, key=lambda i: (-scores[i], i))[:limit]


def bilinear(grid: Array, y: float, x: float) -> Array:
    """Interpolate inside [0, h - 1] x [0, w - 1]."""
    y0, x0 = min(int(y), len(grid) - 1), min(int(x), grid.shape[1] - 1)
    y1, x1 = min(y0 + 1, len(grid) - 1), min(x0 + 1, grid.shape[1] - 1)
    v, u = y - y0, x - x0
    top = (1 - u) * grid[y0, x0] + u * grid[y0, x1]
    return (1 - v) * top + v * ((1 - u) * grid[y1, x0] + u * grid[y1, x1])


def torch_sample(grid: Array, y: float, x: float) -> Array:
    """One sample of ROIAlign: 0 beyond one cell outside, else the border repeated."""
    height, width = grid.shape[:2]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(grid.shape[2:])
    return bilinear(grid, min(max(y, 0), height - 1), min(max(x, 0), width - 1))


def roi_align(
    grid: Array, roi: Array, stride: float, cells: int, ratio: int, aligned: bool
) -> Array:
    """Pool one region of one (h, w, C) map: (cells, cells, C).

    A ratio of 0 takes as many samples a bin as it has cells along each axis.
    """
    x1, y1, x2, y2 = (float(v) / stride - (0.5 if aligned else 0.0) for v in roi)
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = max(height, 1.0), max(width, 1.0)
    rows, columns = (ratio or max(1, math.ceil(n / cells)) for n in (height, width))
    pooled = np.zeros((cells, cells, grid.shape[2]))
    for i in range(cells):
        for j in range(cells):
            for k in range(rows):
                for m in range(columns):
                    y = y1 + (i + (k + 0.5) / rows) * height / cells
                    x = x1 + (j + (m + 0.5) / columns) * width / cells
                    pooled[i, j] += torch_sample(grid, y, x) / (rows * columns)
    return pooled


def crop_and_resize(grid: Array, box: Array, cells: int) -> Array:
    """What `tf.image.crop_and_resize` documents; box (y1, x1, y2, x2) in [0, 1]."""
    height, width = grid.shape[:2]
    cropped = np.zeros((cells, cells, grid.shape[2]))
    for i in range(cells):
        for j in range(cells):
            v, u = (i, j) if cells > 1 else (0.5, 0.5)
            steps = max(cells - 1, 1)
            y = (box[0] + (box[2] - box[0]) * v / steps) * (height - 1)
            x = (box[1] + (box[3] - box[1]) * u / steps) * (width - 1)
            if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                cropped[i, j] = bilinear(grid, y, x)
    return cropped


def roi_level(roi: Array, low: int, high: int) -> int:
    """Equation 1 of the FPN paper."""
    side = math.sqrt(box_area(roi))
    if side == 0:
        return low
    return min(max(math.floor(4 + math.log2(side / 224) + 1e-6), low), high)


def crop_mask(mask: Array, mask_box: Array, roi: Array, size: int) -> Array:
    """Look up the centres of a RoI's cells in a mask that fills `mask_box`."""
    height, width = mask.shape
    cropped = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            y = roi[1] + (roi[3] - roi[1]) * (i + 0.5) / size
            x = roi[0] + (roi[2] - roi[0]) * (j + 0.5) / size
            v = (y - mask_box[1]) / (mask_box[3] - mask_box[1])
            u = (x - mask_box[0]) / (mask_box[2] - mask_box[0])
            if 0 <= v <= 1 and 0 <= u <= 1:
                row = min(max(v * height - 0.5, 0), height - 1)
                column = min(max(u * width - 0.5, 0), width - 1)
                cropped[i, j] = bilinear(mask, row, column)
    return cropped


def paste_mask(mask: Array, box: Array, size: tuple[int, int]) -> Array:
    """Look up the centre of every pixel in a mask with an empty border around it."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    pasted = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            v = (i + 0.5 - box[1]) / (box[3] - box[1]) * height - 0.5
            u = (j + 0.5 - box[0]) / (box[2] - box[0]) * width - 0.5
            if -1 <= v <= height and -1 <= u <= width:
                pasted[i, j] = bilinear(padded, v + 1, u + 1)
    return pasted


def numeric_gradient(
    function: Callable[[Array], float], x: Array, step: float = 1e-4
) -> Array:
    """Central differences of a scalar function."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        gradient[index] = (function(x + shift) - function(x - shift)) / (2 * step)
    return gradient
