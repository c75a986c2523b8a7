"""From a detector's outputs to what `MaskRCNN.detect` returns."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kvision.compat.matterport.molding import Molded
from kvision.evaluation.masks import paste
from kvision.evaluation.results import original_boxes

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
    top, left = molded.offset
    boxes = outputs["boxes"][row][real] - np.array([left, top, left, top], np.float32)
    scale = [new / old for new, old in zip(molded.resized, size, strict=True)]
    found = original_boxes(boxes, scale, size)
    rois = np.rint(found.boxes).astype(np.int32)[:, [1, 0, 3, 2]]
    is_seen = (rois[:, 2] > rois[:, 0]) & (rois[:, 3] > rois[:, 1])
    kept = np.flatnonzero(real)[found.kept][is_seen]
    # Masks are laid over whole pixels, as the rois are.
    whole = np.rint(found.mask_boxes[is_seen])
    masks = paste(outputs["masks"][row][kept], whole, size)
    return {
        "rois": rois[is_seen],
        "class_ids": outputs["labels"][row][kept].astype(np.int32) + 1,
        "scores": outputs["scores"][row][kept].astype(np.float32),
        "masks": np.moveaxis(masks, 0, -1),
    }
