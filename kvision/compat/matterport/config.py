"""`Config`: the class whose attributes configure a `MaskRCNN`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

__all__ = ["Config"]


class Config:
    """Settings of a model and its training: derive a class and override attributes.

    The names and defaults are matterport's. `MaskRCNN` follows every one of them or
    refuses the value; `kvision.compat.matterport.arguments` says which.

    Attributes:
        BATCH_SIZE: IMAGES_PER_GPU * GPU_COUNT, made by the constructor.
        IMAGE_SHAPE: (3,) array: height, width and channels of the model's input, made
            by the constructor.
        IMAGE_META_SIZE: length of the `image_meta` of `load_image_gt`, made by the
            constructor.

    Source: matterport/Mask_RCNN, mrcnn/config.py.
    """

    NAME: str | None = None

    # Devices and steps.
    GPU_COUNT: int = 1
    IMAGES_PER_GPU: int = 2
    STEPS_PER_EPOCH: int = 1000
    VALIDATION_STEPS: int = 50

    # Backbone and pyramid.
    BACKBONE: Any = "resnet101"
    COMPUTE_BACKBONE_SHAPE: Any = None
    BACKBONE_STRIDES: ClassVar[Sequence[int]] = [4, 8, 16, 32, 64]
    FPN_CLASSIF_FC_LAYERS_SIZE: int = 1024
    TOP_DOWN_PYRAMID_SIZE: int = 256
    TRAIN_BN: bool | None = False

    # Classes, background among them.
    NUM_CLASSES: int = 1

    # Anchors (pixels of the input; width / height) and proposals.
    RPN_ANCHOR_SCALES: Sequence[float] = (32, 64, 128, 256, 512)
    RPN_ANCHOR_RATIOS: ClassVar[Sequence[float]] = [0.5, 1, 2]
    RPN_ANCHOR_STRIDE: int = 1
    RPN_NMS_THRESHOLD: float = 0.7
    RPN_TRAIN_ANCHORS_PER_IMAGE: int = 256
    RPN_BBOX_STD_DEV: Any = np.array([0.1, 0.1, 0.2, 0.2])
    PRE_NMS_LIMIT: int = 6000
    POST_NMS_ROIS_TRAINING: int = 2000
    POST_NMS_ROIS_INFERENCE: int = 1000
    USE_RPN_ROIS: bool = True

    # Images: how they are brought to the input, and what is subtracted (RGB, 0-255).
    IMAGE_RESIZE_MODE: str = "square"
    IMAGE_MIN_DIM: int | None = 800
    IMAGE_MAX_DIM: int = 1024
    IMAGE_MIN_SCALE: float | None = 0
    IMAGE_CHANNEL_COUNT: int = 3
    MEAN_PIXEL: Any = np.array([123.7, 116.8, 103.9])

    # Ground truth.
    USE_MINI_MASK: bool = True
    MINI_MASK_SHAPE: tuple[int, int] = (56, 56)
    MAX_GT_INSTANCES: int = 100

    # Heads.
    TRAIN_ROIS_PER_IMAGE: int = 200
    ROI_POSITIVE_RATIO: float = 0.33
    POOL_SIZE: int = 7
    MASK_POOL_SIZE: int = 14
    MASK_SHAPE: ClassVar[Sequence[int]] = [28, 28]
    BBOX_STD_DEV: Any = np.array([0.1, 0.1, 0.2, 0.2])

    # Detections.
    DETECTION_MAX_INSTANCES: int = 100
    DETECTION_MIN_CONFIDENCE: float = 0.7
    DETECTION_NMS_THRESHOLD: float = 0.3

    # Optimization.
    LEARNING_RATE: float = 0.001
    LEARNING_MOMENTUM: float = 0.9
    WEIGHT_DECAY: float = 0.0001
    GRADIENT_CLIP_NORM: float | None = 5.0
    LOSS_WEIGHTS: ClassVar[dict[str, float]] = {
        "rpn_class_loss": 1.0,
        "rpn_bbox_loss": 1.0,
        "mrcnn_class_loss": 1.0,
        "mrcnn_bbox_loss": 1.0,
        "mrcnn_mask_loss": 1.0,
    }

    def __init__(self) -> None:
        self.BATCH_SIZE = self.IMAGES_PER_GPU * self.GPU_COUNT
        crops = self.IMAGE_RESIZE_MODE == "crop"
        side = self.IMAGE_MIN_DIM if crops else self.IMAGE_MAX_DIM
        self.IMAGE_SHAPE = np.array([side, side, self.IMAGE_CHANNEL_COUNT])
        # Id, two shapes, window, scale, and a number for each class.
        self.IMAGE_META_SIZE = 1 + 3 + 3 + 4 + 1 + self.NUM_CLASSES

    def display(self) -> None:
        """Print every attribute with its value."""
        print("\nConfigurations:")
        for name in sorted(dir(self)):
            value = getattr(self, name)
            if not name.startswith("_") and not callable(value):
                print(f"{name:30} {value}")
        print()
