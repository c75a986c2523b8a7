"""Files on disk to `tf.data`: COCO, folders of classes, arrays, augmentation.

`kvision.data.check.check` looks a data set over before training.
"""

from kvision.data.arrays import arrays
from kvision.data.class_files import find_splits
from kvision.data.classification_transforms import (
    ColorJitter,
    RandomErasing,
    RandomPaddedCrop,
    RandomResizedCrop,
    ThreeAugment,
    named_transforms,
)
from kvision.data.coco import coco, find_coco, split_coco
from kvision.data.findings import DataError
from kvision.data.folders import folders
from kvision.data.images import load_image, resize_image, resized_size
from kvision.data.mixing import CutMix, MixUp, MixUpOrCutMix
from kvision.data.preparation import prepare_image
from kvision.data.rand_augment import RandAugment
from kvision.data.shapes import shapes, shapes_coco
from kvision.data.tfds import tfds
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
    "ColorJitter",
    "CopyPaste",
    "CutMix",
    "DataError",
    "HorizontalFlip",
    "LargeScaleJitter",
    "MixUp",
    "MixUpOrCutMix",
    "Photometric",
    "RandAugment",
    "RandomErasing",
    "RandomPaddedCrop",
    "RandomResizedCrop",
    "Rotate",
    "Rotate90",
    "ThreeAugment",
    "VerticalFlip",
    "arrays",
    "coco",
    "default_transforms",
    "find_coco",
    "find_splits",
    "folders",
    "load_image",
    "named_transforms",
    "prepare_image",
    "resize_image",
    "resized_size",
    "shapes",
    "shapes_coco",
    "split_coco",
    "tfds",
]
