"""Arguments with which `faster_rcnn` and `mask_rcnn` compute what others published.

Example: `mask_rcnn("resnet50", class_names=names, **TORCHVISION_V2)`.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["DETECTRON2", "MATTERPORT", "TORCHVISION_V1", "TORCHVISION_V2"]

# Source: torchvision, models/detection: weights named COCO_V1 were trained with 0 added
# to the variance (`overwrite_eps`).
TORCHVISION_V1: Mapping[str, Any] = MappingProxyType({"batch_norm_epsilon": 0.0})

# Source: torchvision, fasterrcnn_resnet50_fpn_v2 and maskrcnn_resnet50_fpn_v2.
TORCHVISION_V2: Mapping[str, Any] = MappingProxyType(
    {
        "head_batch_norm": True,
        "rpn_num_convs": 2,
        "box_num_convs": 4,
        "box_num_dense": 1,
    }
)

# Source: detectron2, configs/COCO-InstanceSegmentation and config/defaults.py. It fills
# images up to a multiple of 32 pixels: `image_size` should be one. Regions of more than
# 1120 x 1120 pixels are sampled less densely than there.
DETECTRON2: Mapping[str, Any] = MappingProxyType(
    {
        "normalization": ((123.675, 116.28, 103.53), 1.0),
        "stride_in_1x1": True,
        "anchor_rounded": False,
        "anchor_strides": (4, 8, 16, 32, 64),
        "roi_align_mode": "aligned",
        "roi_align_sampling_ratio": 0,
        "rpn_train_post_nms_top_k": 1000,
        "rpn_loss_beta": 0.0,
        "box_loss_beta": 0.0,
    }
)

# Source: matterport/Mask_RCNN, mrcnn/config.py and model.py; `mask_rcnn_coco.h5` is for
# "resnet101". It takes images of a multiple of 64 pixels. It rounds the level of a
# region, as if it were larger by half an octave. Its sizes of boxes grow without limit,
# ours by a factor of 62.5 at most. Its losses are these; the anchors and regions that
# enter them are not all the same (docs/from_matterport.md).
MATTERPORT: Mapping[str, Any] = MappingProxyType(
    {
        "normalization": ((123.7, 116.8, 103.9), 1.0),
        "batch_norm_epsilon": 1e-3,
        "stride_in_1x1": True,
        "pool_padding": "same",
        "anchor_aspect_ratios": (2.0, 1.0, 0.5),
        "anchor_rounded": False,
        "anchor_strides": (4, 8, 16, 32, 64),
        "inclusive_boxes": True,
        "rpn_channels": 512,
        "rpn_per_level": False,
        "rpn_pre_nms_top_k": 6000,
        "rpn_train_pre_nms_top_k": 6000,
        "rpn_delta_weights": (10.0, 10.0, 5.0, 5.0),
        "rpn_loss_beta": 1.0,
        "roi_align_mode": "crop_and_resize",
        "roi_canonical_size": 224 / math.sqrt(2),
        "box_num_samples": 200,
        "box_positive_fraction": 0.33,
        "box_loss_beta": 1.0,
        "mean_box_losses": True,
        "best_class_only": True,
        "score_threshold": 0.7,
        "nms_iou_threshold": 0.3,
    }
)
