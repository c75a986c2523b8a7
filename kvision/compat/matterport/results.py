"""From a detector's outputs to what `MaskRCNN.detect` returns."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kvision.compat.matterport.molding import Molded
from kvision.evaluation.masks import paste

__all__ = ["unmold"]

Array = np.ndarray


def unmold(
    outputs: Mapping[str, Array], row: int, molded: Molded, size: tuple[int, int]
) -> dict[str, Any]:
    """Bring the detections of an image back to its pixels.

    Args:
        outputs: of the model, for a batch.
        row: which image of the batch.
        molded: the image as the model saw it.
        size: (height, width) of the image in pixels.

    Returns:
        dict of `rois` (N, 4) int32, (y1, x1, y2, x2) in pixels; `class_ids` (N,)
        int32 from 1; `scores` (N,) float32; `masks` (H, W, N) bool. Boxes that no pixel
        is left of are not among them.
    """
    real = outputs["labels"][row] >= 0
    whole = np.rint(_in_image(outputs["boxes"][row][real], molded, size))
    rois = np.clip(whole, 0, [*size, *size]).astype(np.int32)
    is_seen = (rois[:, 2] > rois[:, 0]) & (rois[:, 3] > rois[:, 1])
    kept = np.flatnonzero(real)[is_seen]
    # A mask is of the box before it was cut to the image.
    masks = paste(outputs["masks"][row][kept], whole[is_seen][:, [1, 0, 3, 2]], size)
    return {
        "rois": rois[is_seen],
        "class_ids": outputs["labels"][row][kept].astype(np.int32) + 1,
        "scores": outputs["scores"][row][kept].astype(np.float32),
        "masks": np.moveaxis(masks, 0, -1),
    }


def _in_image(boxes: Array, molded: Molded, size: tuple[int, int]) -> Array:
    """Take (N, 4) xyxy boxes in the input to (y1, x1, y2, x2) in the image.

    By matterport's rule: the first and the last pixel of the image in the input become
    the first and the last one of the image.
    """
    factor = np.divide(np.array(size) - 1, np.maximum(np.array(molded.resized) - 1, 1))
    first = (boxes[:, [1, 0]] - molded.offset) * factor
    last = (boxes[:, [3, 2]] - 1 - molded.offset) * factor
    return np.concatenate([first, last + 1], axis=1)
