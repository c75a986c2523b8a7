"""Scores of detections and classifiers: numpy and json in, dict out. No TensorFlow."""

from kvision.evaluation.annotations import Annotations, read_annotations
from kvision.evaluation.classification import (
    area_under_roc,
    bootstrap_intervals,
    calibration,
    classification_scores,
    confusion_counts,
    roc_curves,
)
from kvision.evaluation.coco import coco_scores, engine, figure_names
from kvision.evaluation.curves import (
    ConfusionMatrix,
    PRCurves,
    confusion_matrix,
    pr_curves,
)
from kvision.evaluation.masks import paste, patches, rles
from kvision.evaluation.results import (
    coco_results,
    detection_results,
    ground_truth_results,
    original_boxes,
)

__all__ = [
    "Annotations",
    "ConfusionMatrix",
    "PRCurves",
    "area_under_roc",
    "bootstrap_intervals",
    "calibration",
    "classification_scores",
    "coco_results",
    "coco_scores",
    "confusion_counts",
    "confusion_matrix",
    "detection_results",
    "engine",
    "figure_names",
    "ground_truth_results",
    "original_boxes",
    "paste",
    "patches",
    "pr_curves",
    "read_annotations",
    "rles",
    "roc_curves",
]
