"""VOC's average precision of the masks of one image, as matterport computes it.

For figures that compare with others use `kvision.evaluation`: COCO's, over a data set.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kvision.compat.matterport.boxes import compute_overlaps

__all__ = [
    "AveragePrecision",
    "Matches",
    "compute_ap",
    "compute_ap_range",
    "compute_matches",
    "compute_overlaps_masks",
    "compute_recall",
]

Array = np.ndarray


class Matches(NamedTuple):
    """Which prediction belongs to which object.

    Attributes:
        gt_match: (G,) array, for each object the prediction, or -1.
        pred_match: (N,) array, for each prediction, best first, the object, or -1.
        overlaps: (N, G) IoU of the masks, predictions best first.
    """

    gt_match: Array
    pred_match: Array
    overlaps: Array


class AveragePrecision(NamedTuple):
    """Precision over recall, and the area below it.

    Attributes:
        ap: the area.
        precisions: (N + 2,) array, each the best at this recall or a higher one.
        recalls: (N + 2,) array, ascending from 0 to 1.
        overlaps: (N, G) IoU of the masks, predictions best first.
    """

    ap: float
    precisions: Array
    recalls: Array
    overlaps: Array


def compute_overlaps_masks(masks1: Array, masks2: Array) -> Array:
    """Compute the IoU of every mask with every other.

    Args:
        masks1: (H, W, N) array, bool or in [0, 1].
        masks2: (H, W, M) array.

    Returns:
        (N, M) array; 0 where both masks are empty.
    """
    if not (masks1.size and masks2.size):
        return np.zeros((masks1.shape[-1], masks2.shape[-1]))
    one, two = (
        (masks > 0.5).reshape(-1, masks.shape[-1]).astype(np.float32)
        for masks in (masks1, masks2)
    )
    shared = one.T @ two
    union = one.sum(axis=0)[:, None] + two.sum(axis=0)[None] - shared
    return shared / np.where(union > 0, union, 1)


def compute_matches(
    gt_boxes: Array,
    gt_class_ids: Array,
    gt_masks: Array,
    pred_boxes: Array,
    pred_class_ids: Array,
    pred_scores: Array,
    pred_masks: Array,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
) -> Matches:
    """Give each prediction, best first, the object it overlaps most, if it is free.

    Args:
        gt_boxes: (G, 4) array; rows of zeros at its end are padding.
        gt_class_ids: (G,) array.
        gt_masks: (H, W, G) array.
        pred_boxes: (N, 4) array; rows of zeros at its end are padding.
        pred_class_ids: (N,) array.
        pred_scores: (N,) array.
        pred_masks: (H, W, N) array.
        iou_threshold: least IoU of the masks of a match.
        score_threshold: the same, as matterport has it: the larger one counts.

    Returns:
        The matches. (In matterport's code an object that was matched by the best
        prediction could be matched again.)
    """
    num_objects, number = _rows(gt_boxes), _rows(pred_boxes)
    order = np.argsort(pred_scores[:number])[::-1]
    gt_masks, pred_masks = gt_masks[..., :num_objects], pred_masks[..., order]
    overlaps = compute_overlaps_masks(pred_masks, gt_masks)
    gt_match, pred_match = np.full(num_objects, -1.0), np.full(number, -1.0)
    least = max(iou_threshold, score_threshold)
    for row, label in enumerate(pred_class_ids[order]):
        is_free = (gt_match < 0) & (overlaps[row] >= least)
        candidates = np.flatnonzero(is_free & (gt_class_ids[:num_objects] == label))
        if candidates.size:
            best = candidates[np.argmax(overlaps[row, candidates])]
            gt_match[best], pred_match[row] = row, best
    return Matches(gt_match, pred_match, overlaps)


def compute_ap(
    gt_boxes: Array,
    gt_class_ids: Array,
    gt_masks: Array,
    pred_boxes: Array,
    pred_class_ids: Array,
    pred_scores: Array,
    pred_masks: Array,
    iou_threshold: float = 0.5,
) -> AveragePrecision:
    """Compute the average precision of one image, all classes together.

    Args:
        gt_boxes: see `compute_matches`, like all that follow.
        gt_class_ids: (G,) array.
        gt_masks: (H, W, G) array.
        pred_boxes: (N, 4) array.
        pred_class_ids: (N,) array.
        pred_scores: (N,) array.
        pred_masks: (H, W, N) array.
        iou_threshold: least IoU of the masks of a match.

    Returns:
        Average precision, precisions, recalls and overlaps; 0 where there is no object
        or no prediction.
    """
    found = compute_matches(
        gt_boxes,
        gt_class_ids,
        gt_masks,
        pred_boxes,
        pred_class_ids,
        pred_scores,
        pred_masks,
        iou_threshold,
    )
    hits = np.cumsum(found.pred_match > -1)
    precisions = np.concatenate([[0], hits / np.arange(1, len(hits) + 1), [0]])
    recalls = np.concatenate([[0], hits / max(1, len(found.gt_match)), [1]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
    ap = float(np.sum(np.diff(recalls) * precisions[1:]))
    return AveragePrecision(ap, precisions, recalls, found.overlaps)


def compute_ap_range(
    gt_box: Array,
    gt_class_id: Array,
    gt_mask: Array,
    pred_box: Array,
    pred_class_id: Array,
    pred_score: Array,
    pred_mask: Array,
    iou_thresholds: Sequence[float] | None = None,
    verbose: int = 1,
) -> float:
    """Average `compute_ap` over thresholds.

    Args:
        gt_box: see `compute_matches`, like all that follow.
        gt_class_id: (G,) array.
        gt_mask: (H, W, G) array.
        pred_box: (N, 4) array.
        pred_class_id: (N,) array.
        pred_score: (N,) array.
        pred_mask: (H, W, N) array.
        iou_thresholds: 0.5, 0.55, ... 0.95 by default.
        verbose: 1 prints a line a threshold, 0 nothing.

    Returns:
        The mean.
    """
    if iou_thresholds is None:
        iou_thresholds = [round(0.5 + 0.05 * step, 2) for step in range(10)]
    truth = gt_box, gt_class_id, gt_mask
    found = pred_box, pred_class_id, pred_score, pred_mask
    aps = [compute_ap(*truth, *found, threshold).ap for threshold in iou_thresholds]
    mean = float(np.mean(aps))
    if verbose:
        for threshold, ap in zip(iou_thresholds, aps, strict=True):
            print(f"AP @{threshold:.2f}:\t {ap:.3f}")
        print(f"AP @{iou_thresholds[0]:.2f}-{iou_thresholds[-1]:.2f}:\t {mean:.3f}")
    return mean


def compute_recall(
    pred_boxes: Array, gt_boxes: Array, iou: float
) -> tuple[float, Array]:
    """Compute the share of objects that some box overlaps.

    Args:
        pred_boxes: (N, 4) array.
        gt_boxes: (G, 4) array.
        iou: least overlap of the boxes.

    Returns:
        The share, and the numbers of the boxes that overlap an object so much.
    """
    overlaps = compute_overlaps(pred_boxes, gt_boxes)
    hits = np.flatnonzero(overlaps.max(axis=1, initial=0) >= iou)
    objects = overlaps[hits].argmax(axis=1) if hits.size else hits
    return len(np.unique(objects)) / max(1, len(gt_boxes)), hits


def _rows(boxes: Array) -> int:
    """Count the rows before those of zeros at the end."""
    used = np.flatnonzero(np.any(boxes != 0, axis=1))
    return int(used[-1]) + 1 if used.size else 0
