"""Drawing: detections and scores with Pillow, curves with matplotlib (extra `viz`)."""

from kvision.viz.classifications import draw_scores
from kvision.viz.curves import (
    plot_calibration,
    plot_confusion_matrix,
    plot_history,
    plot_precision_recall,
    plot_roc,
)
from kvision.viz.detections import draw_detections, picture_zoom
from kvision.viz.panels import mosaic, save_picture, side_by_side

__all__ = [
    "draw_detections",
    "draw_scores",
    "mosaic",
    "picture_zoom",
    "plot_calibration",
    "plot_confusion_matrix",
    "plot_history",
    "plot_precision_recall",
    "plot_roc",
    "save_picture",
    "side_by_side",
]
