"""Boxes of interest of a photo, in the pixels of a classifier's input."""

import logging
from typing import Any

import numpy as np

from kvision.export.classifier import Classifier
from kvision.viz import seen_region

__all__ = ["input_regions"]

Array = np.ndarray

_log = logging.getLogger("kvision.predict")


def input_regions(
    classifier: Classifier, boxes: Any, photo_size: tuple[int, int]
) -> Array:
    """Take boxes from the pixels of a photo to those of the input made of it.

    Args:
        classifier: a classifier that takes regions.
        boxes: (n, 4) array of x1, y1, x2, y2 in pixels of the photo; n from 0 to its
            `num_regions`.
        photo_size: (height, width) of the photo in pixels.

    Returns:
        (num_regions, 4) float32 array, filled up with rows of zeros. A box may stick
        out of the input where the preprocessing crops; what sticks out counts nothing,
        and it is logged if that is all of it.

    Raises:
        ValueError: the boxes are too many, or not within the photo.
    """
    boxes = _checked(boxes, photo_size)
    if len(boxes) > classifier.num_regions:
        raise ValueError(
            f"{classifier.name} takes up to {classifier.num_regions} regions an image "
            f"(its num_regions). Received: {len(boxes)}"
        )
    x1, y1, x2, y2 = seen_region(
        photo_size, classifier.image_size, classifier.resize, classifier.crop_fraction
    )
    unseen = (boxes[:, 2:] <= [x1, y1]) | (boxes[:, :2] >= [x2, y2])
    if unseen.any():
        _log.warning(
            "%d of %d regions lie in the border that the preprocessing cuts off",
            unseen.any(axis=1).sum(),
            len(boxes),
        )
    height, width = classifier.image_size
    scale = np.array([width / (x2 - x1), height / (y2 - y1)] * 2)
    regions = np.zeros((classifier.num_regions, 4), np.float32)
    regions[: len(boxes)] = (boxes - [x1, y1, x1, y1]) * scale
    return regions


def _checked(boxes: Any, photo_size: tuple[int, int]) -> Array:
    found = np.asarray(boxes, np.float64)
    found = found.reshape(-1, 4) if found.size == 0 else found
    if found.ndim != 2 or found.shape[1] != 4:
        raise ValueError(
            "Expected for each image boxes (n, 4), x1, y1, x2, y2 in pixels of the "
            f"photo. Received: shape {found.shape}"
        )
    height, width = photo_size
    start, end = found[:, :2], found[:, 2:]
    # Not the opposite of each: no comparison with NaN is true.
    fits = (start >= 0) & (start < end) & (end <= [width, height])
    wrong = found[~fits.all(axis=1)]
    if len(wrong):
        raise ValueError(
            f"Expected regions x1 < x2, y1 < y2 within the photo of {width} x {height} "
            f"pixels. Received: {wrong[0].tolist()}"
        )
    return found
