"""Drawing: detections with Pillow, curves with matplotlib (extra `viz`)."""

from kvision.viz.curves import (
    plot_confusion_matrix,
    plot_history,
    plot_precision_recall,
)
from kvision.viz.detections import draw_detections, picture_zoom
from kvision.viz.panels import mosaic, save_picture, side_by_side

__all__ = [
    "draw_detections",
    "mosaic",
    "picture_zoom",
    "plot_confusion_matrix",
    "plot_history",
    "plot_precision_recall",
    "save_picture",
    "side_by_side",
]
