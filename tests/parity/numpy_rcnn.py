"""A second implementation of R-CNN arithmetic in NumPy, for sources that cannot run.

Written from the definitions and from what the sources document, not from kvision's
code. Maps are (h, w, C) of one image, kernels (h, w, inputs, outputs).
"""

import numpy as np

from tests.parity.numpy_reference import roi_align

Array = np.ndarray
Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(x: Array, kernel: Array, stride: int = 1, padding: int = 0) -> Array:
    """Sum over the taps of the kernel; the same zeros on all four sides."""
    height, width = kernel.shape[:2]
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    rows = (x.shape[0] - height) // stride + 1
    columns = (x.shape[1] - width) // stride + 1
    total = np.zeros((rows, columns, kernel.shape[3]), x.dtype)
    for i in range(height):
        for j in range(width):
            window = x[
                i : i + rows * stride : stride, j : j + columns * stride : stride
            ]
            total += window[:rows, :columns] @ kernel[i, j]
    return total


def max_pool(x: Array, padding: Padding) -> Array:
    """Take the largest of 3 x 3 cells at every second one."""
    x = np.pad(x, (*padding, (0, 0)), constant_values=-np.inf)
    rows, columns = (x.shape[0] - 3) // 2 + 1, (x.shape[1] - 3) // 2 + 1
    windows = [
        x[i : i + 2 * rows : 2, j : j + 2 * columns : 2][:rows, :columns]
        for i in range(3)
        for j in range(3)
    ]
    return np.max(windows, axis=0)


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def doubled(x: Array) -> Array:
    return x.repeat(2, axis=0).repeat(2, axis=1)


def transposed_convolution(x: Array, kernel: Array) -> Array:
    """Enlarge by two; kernel (2, 2, inputs, outputs), each cell makes its own four."""
    height, width = x.shape[:2]
    result = np.zeros((2 * height, 2 * width, kernel.shape[3]), x.dtype)
    for i in range(2):
        for j in range(2):
            result[i::2, j::2] = x @ kernel[i, j]
    return result


def overlaps(box: Array, others: Array) -> Array:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    both = np.prod(box[2:] - box[:2]) + areas - shared
    return shared / np.where(both > 0, both, 1)


def suppressed(
    boxes: Array, scores: Array, threshold: float, limit: int | None = None
) -> list[int]:
    """Greedy suppression: indices that stay, best first, the first `limit` of them."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) != limit:
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[overlaps(boxes[best], boxes[order]) <= threshold]
    return kept


def moved(boxes: Array, deltas: Array) -> Array:
    """Move and grow (x1, y1, x2, y2) boxes by (dx, dy, dw, dh)."""
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + 0.5 * size + deltas[:, :2] * size
    size = size * np.exp(np.minimum(deltas[:, 2:], np.log(1000 / 16)))
    return np.concatenate([centre - 0.5 * size, centre + 0.5 * size], axis=1)


def clipped(boxes: Array, image_size: tuple[int, int]) -> Array:
    height, width = image_size
    return np.clip(boxes, 0, [width, height, width, height])


def pooled(
    maps: dict[int, Array], rois: Array, levels: list[int], cells: int, aligned: bool
) -> Array:
    """Pool every region from its level with as many samples as a bin has cells."""
    return np.stack(
        [
            roi_align(maps[level], roi, 2.0**level, cells, 0, aligned)
            for roi, level in zip(rois, levels, strict=True)
        ]
    )
