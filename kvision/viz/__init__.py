"""Drawing and looking inside: detections, scores, attention, tokens, curves.

Curves need matplotlib (extra `viz`); all the rest is drawn with Pillow alone.
"""

from kvision.viz.attention import AttentionMap, attention_maps, attention_rollout
from kvision.viz.classifications import draw_scores
from kvision.viz.curves import (
    plot_calibration,
    plot_confusion_matrix,
    plot_history,
    plot_precision_recall,
    plot_roc,
)
from kvision.viz.detections import draw_detections, picture_zoom
from kvision.viz.heatmaps import draw_grid, draw_heat, draw_similarity, seen_region
from kvision.viz.panels import mosaic, save_picture, side_by_side
from kvision.viz.patches import draw_kept, draw_patches
from kvision.viz.tokens import (
    fine_patches,
    kept_tokens,
    patch_similarity,
    position_similarity,
)

__all__ = [
    "AttentionMap",
    "attention_maps",
    "attention_rollout",
    "draw_detections",
    "draw_grid",
    "draw_heat",
    "draw_kept",
    "draw_patches",
    "draw_scores",
    "draw_similarity",
    "fine_patches",
    "kept_tokens",
    "mosaic",
    "patch_similarity",
    "picture_zoom",
    "plot_calibration",
    "plot_confusion_matrix",
    "plot_history",
    "plot_precision_recall",
    "plot_roc",
    "position_similarity",
    "save_picture",
    "seen_region",
    "side_by_side",
]
