"""Files on disk to `tf.data`: COCO folders, generated shapes, augmentation.

`kvision.data.check.check` looks a data set over before training.
"""

from kvision.data.coco import coco, find_coco, split_coco
from kvision.data.findings import DataError
from kvision.data.images import load_image, resize_image, resized_size
from kvision.data.shapes import shapes, shapes_coco
from kvision.data.transforms import (
    CopyPaste,
    HorizontalFlip,
    LargeScaleJitter,
    Photometric,
    Rotate,
    Rotate90,
    VerticalFlip,
    default_transforms,
)

__all__ = [
    "CopyPaste",
    "DataError",
    "HorizontalFlip",
    "LargeScaleJitter",
    "Photometric",
    "Rotate",
    "Rotate90",
    "VerticalFlip",
    "coco",
    "default_transforms",
    "find_coco",
    "load_image",
    "resize_image",
    "resized_size",
    "shapes",
    "shapes_coco",
    "split_coco",
]
