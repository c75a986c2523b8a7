"""Callbacks for `fit`, also reachable as `kvision.callbacks`."""

from kvision.train.coco_metrics import COCOMetrics

__all__ = ["COCOMetrics"]
