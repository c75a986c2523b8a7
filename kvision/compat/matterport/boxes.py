"""Boxes as matterport has them: (y1, x1, y2, x2) in pixels, y2 and x2 exclusive."""

import numpy as np

__all__ = ["compute_overlaps", "extract_bboxes", "non_max_suppression"]

Array = np.ndarray


def extract_bboxes(mask: Array) -> Array:
    """Find the extents of masks.

    Args:
        mask: (H, W, N) bool or 0/1 array.

    Returns:
        (N, 4) int32 array; zeros where a mask is empty.
    """
    boxes = np.zeros((mask.shape[-1], 4), np.int32)
    for first, last, axis in ((0, 2, 1), (1, 3, 0)):
        is_in = np.any(mask, axis=axis)  # (H, N), then (W, N)
        is_seen = is_in.any(axis=0)
        boxes[is_seen, first] = is_in.argmax(axis=0)[is_seen]
        boxes[is_seen, last] = len(is_in) - is_in[::-1].argmax(axis=0)[is_seen]
    return boxes


def compute_overlaps(boxes1: Array, boxes2: Array) -> Array:
    """Compute the IoU of every box with every other.

    Args:
        boxes1: (N, 4) array.
        boxes2: (M, 4) array.

    Returns:
        (N, M) array; 0 where both boxes are empty.
    """
    one, two = boxes1[:, None].astype(float), boxes2[None].astype(float)
    low, high = np.maximum(one, two)[..., :2], np.minimum(one, two)[..., 2:]
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    union = _area(one) + _area(two) - shared
    return shared / np.where(union > 0, union, 1)


def non_max_suppression(boxes: Array, scores: Array, threshold: float) -> Array:
    """Keep the boxes that overlap no better one.

    Args:
        boxes: (N, 4) array, N at least 1.
        scores: (N,) array.
        threshold: IoU above which the weaker box is dropped.

    Returns:
        int32 array, the numbers of the boxes that are kept, best first.

    Raises:
        ValueError: there is no box.
    """
    if not len(boxes):
        raise ValueError("boxes must hold at least one box. Received: none")
    overlaps = compute_overlaps(boxes, boxes)
    kept: list[int] = []
    for candidate in np.argsort(scores)[::-1]:
        if (overlaps[candidate, kept] <= threshold).all():
            kept.append(int(candidate))
    return np.array(kept, np.int32)


def _area(boxes: Array) -> Array:
    return np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
