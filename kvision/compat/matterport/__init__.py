"""matterport's Mask_RCNN, its interface on our model: old scripts with new imports.

- `mrcnn.config` is `kvision.compat.matterport.config`
- `mrcnn.model` is `kvision.compat.matterport.model`
- `mrcnn.visualize` is `kvision.compat.matterport.visualize`
- `mrcnn.utils` is this module: `from kvision.compat import matterport as utils`

docs/from_matterport.md says what differs, and how a project moves on to kvision itself.
"""

from kvision.compat.matterport.boxes import (
    compute_overlaps,
    extract_bboxes,
    non_max_suppression,
)
from kvision.compat.matterport.coco_weights import download_trained_weights
from kvision.compat.matterport.dataset import Dataset
from kvision.compat.matterport.molding import resize_image
from kvision.compat.matterport.scores import (
    compute_ap,
    compute_ap_range,
    compute_matches,
    compute_overlaps_masks,
    compute_recall,
)

__all__ = [
    "Dataset",
    "compute_ap",
    "compute_ap_range",
    "compute_matches",
    "compute_overlaps",
    "compute_overlaps_masks",
    "compute_recall",
    "download_trained_weights",
    "extract_bboxes",
    "non_max_suppression",
    "resize_image",
]
