"""Matching of anchors or RoIs to ground truth by intersection over union."""

from typing import Any

from keras import ops

__all__ = ["IGNORED", "NEGATIVE", "POSITIVE", "match"]

Tensor = Any

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match(
    iou: Tensor,
    is_object: Tensor,
    positive_iou_threshold: float,
    negative_iou_threshold: float,
    allow_low_quality: bool = False,
) -> tuple[Tensor, Tensor]:
    """Give each candidate its best ground-truth box and a verdict.

    Args:
        iou: (B, G, N) float tensor in [0, 1]: ground truth against candidates.
        is_object: (B, G) bool tensor, False for padding and ignore regions.
        positive_iou_threshold: candidates at or above it are positive.
        negative_iou_threshold: candidates below it are negative, those between the
            two thresholds are ignored.
        allow_low_quality: whether every candidate that is the best one (ties
            included) of some ground-truth box is positive however low its overlap.
            As in torchvision it keeps its own best box, which may be another one.
            Unlike there, a box that overlaps no candidate at all claims none.

    Returns:
        indices: (B, N) int32 tensor, the best ground-truth row of each candidate.
        verdicts: (B, N) int32 tensor of POSITIVE, NEGATIVE or IGNORED. Without any
            object all candidates are NEGATIVE.

    Source: torchvision `models/detection/_utils.py`, class Matcher.
    """
    iou = ops.where(is_object[:, :, None], iou, -1.0)
    indices = ops.cast(ops.argmax(iou, axis=1), "int32")
    best_iou = ops.max(iou, axis=1)
    positive = best_iou >= positive_iou_threshold
    negative = best_iou < negative_iou_threshold
    if allow_low_quality:
        best_of_object = ops.maximum(ops.max(iou, axis=2, keepdims=True), 1e-6)
        is_best_of_some = ops.any(iou >= best_of_object, axis=1)
        positive = ops.logical_or(positive, is_best_of_some)
    verdicts = ops.where(negative, NEGATIVE, IGNORED)
    return indices, ops.cast(ops.where(positive, POSITIVE, verdicts), "int32")
