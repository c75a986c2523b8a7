"""Precision-recall curves and the confusion matrix: the data, not the drawing."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from kvision.evaluation.annotations import read_annotations
from kvision.evaluation.coco import GroundTruth, evaluate

__all__ = ["ConfusionMatrix", "PRCurves", "confusion_matrix", "pr_curves"]

Array = np.ndarray
Result = dict[str, Any]


@dataclass(frozen=True)
class PRCurves:
    """Precision over recall of each class.

    Shape letters: R recall points, T IoU thresholds.

    Attributes:
        recall: (R,) array, 0 to 1.
        iou_thresholds: T thresholds.
        precision: class name -> (T, R) array, interpolated as COCO does (the best
            precision at this recall or a higher one); classes without an object are
            left out.
        scores: class name -> (T, R) array, the score threshold that gives the recall.
    """

    recall: Array
    iou_thresholds: list[float]
    precision: dict[str, Array]
    scores: dict[str, Array]


def pr_curves(
    annotations: GroundTruth,
    results: Sequence[Result],
    *,
    masks: bool = False,
    iou_thresholds: Sequence[float] = (0.5, 0.75),
    max_detections: int = 100,
    class_names: Iterable[str] | None = None,
    image_ids: Iterable[int] | None = None,
) -> PRCurves:
    """Compute the precision-recall curves of COCO's evaluation.

    Args:
        annotations: as in `coco_scores`.
        results: as in `coco_scores`.
        masks: whether the overlap is that of masks rather than that of boxes.
        iou_thresholds: some of 0.50, 0.55 ... 0.95.
        max_detections: the detections per image and class that count, best first.
        class_names: the classes; all categories by default.
        image_ids: the images; all by default.

    Returns:
        The curves of all classes that have objects.
    """
    run = evaluate(
        annotations,
        results,
        masks=masks,
        max_detections=max_detections,
        class_names=class_names,
        image_ids=image_ids,
    )
    rows = [_threshold_index(run.iou_thresholds, iou) for iou in iou_thresholds]
    present = {
        name: index
        for index, name in enumerate(run.class_names)
        if run.precision[0, 0, index, 0, -1] > -1
    }
    return PRCurves(
        recall=run.recall_points,
        iou_thresholds=list(iou_thresholds),
        precision={n: run.precision[rows, :, i, 0, -1] for n, i in present.items()},
        scores={n: run.scores[rows, :, i, 0, -1] for n, i in present.items()},
    )


@dataclass(frozen=True)
class ConfusionMatrix:
    """What was there against what was found.

    Attributes:
        counts: (K+1, K+1) int array. Row = true class, column = found class; the last
            row counts detections of nothing, the last column objects not found.
        class_names: K names and "background".
        iou_threshold: overlap from which a detection and an object go together.
        score_threshold: score from which a detection counts.
    """

    counts: Array
    class_names: list[str]
    iou_threshold: float
    score_threshold: float


def confusion_matrix(
    annotations: GroundTruth,
    results: Sequence[Result],
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
    class_names: Iterable[str] | None = None,
    image_ids: Iterable[int] | None = None,
) -> ConfusionMatrix:
    """Count which class was taken for which.

    Boxes are matched whatever their class, the pair with the largest overlap first,
    each box once. A detection without a partner that lies in a crowd is not counted.

    Args:
        annotations: as in `coco_scores`.
        results: as in `coco_scores`.
        iou_threshold: overlap from which a detection and an object go together.
        score_threshold: score from which a detection counts.
        class_names: the classes; all categories by default.
        image_ids: the images; all by default.

    Returns:
        The counts.
    """
    truth = read_annotations(annotations)
    names = list(truth.categories.values() if class_names is None else class_names)
    label = {category: k for k, category in enumerate(truth.category_ids(names))}
    truths, found = _by_image(truth.boxes, label), _by_image(results, label)
    counts = np.zeros((len(names) + 1, len(names) + 1), np.int64)
    for image_id in truth.image_sizes if image_ids is None else image_ids:
        detections = [r for r in found[image_id] if r["score"] >= score_threshold]
        for pair in _match(truths[image_id], detections, iou_threshold, label):
            counts[pair] += 1
    return ConfusionMatrix(
        counts, [*names, "background"], iou_threshold, score_threshold
    )


def _threshold_index(thresholds: Array, iou: float) -> int:
    """Find an IoU threshold among those that COCO evaluates."""
    index = int(np.argmin(np.abs(thresholds - iou)))
    if abs(thresholds[index] - iou) > 1e-6:
        raise ValueError(
            f"iou_thresholds must be some of {thresholds.round(2).tolist()}. "
            f"Received {iou}"
        )
    return index


def _by_image(
    items: Iterable[Result], label: dict[int, int]
) -> dict[int, list[Result]]:
    """Group annotations or results of the wanted categories by image."""
    groups: dict[int, list[Result]] = defaultdict(list)
    for item in items:
        if item["category_id"] in label:
            groups[item["image_id"]].append(item)
    return groups


def _match(
    truths: list[Result],
    detections: list[Result],
    iou_threshold: float,
    label: dict[int, int],
) -> list[tuple[int, int]]:
    """Return (true, found) labels of one image; K, the last, stands for nothing."""
    nothing = len(label)
    objects = [item for item in truths if not item["iscrowd"]]
    crowds = [item for item in truths if item["iscrowd"]]
    pairs = []
    free_objects, free_detections = (
        set(range(len(objects))),
        set(range(len(detections))),
    )
    ious = _overlaps(detections, objects, crowd=False)
    for flat in np.argsort(-ious, axis=None, kind="stable"):
        found, true = np.unravel_index(flat, ious.shape)
        if ious[found, true] < iou_threshold:
            break
        if found in free_detections and true in free_objects:
            free_detections.remove(found)
            free_objects.remove(true)
            pairs.append(
                (_label(objects[true], label), _label(detections[found], label))
            )
    in_crowd = _overlaps(detections, crowds, crowd=True) >= iou_threshold
    pairs += [(_label(objects[true], label), nothing) for true in free_objects]
    pairs += [
        (nothing, _label(detections[found], label))
        for found in free_detections
        if not in_crowd[found].any()
    ]
    return pairs


def _label(item: Result, label: dict[int, int]) -> int:
    return label[item["category_id"]]


def _overlaps(detections: list[Result], truths: list[Result], crowd: bool) -> Array:
    """Return the (D, G) IoU of boxes, over the detection's area alone for crowds."""
    if not detections or not truths:
        return np.zeros((len(detections), len(truths)))
    found = np.array([item["bbox"] for item in detections], np.float64)
    true = np.array([item["bbox"] for item in truths], np.float64)
    return coco_mask.iou(found, true, [int(crowd)] * len(true))
