"""A configuration, a data set and weights of matterport's layout, for seconds."""

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvision.compat.matterport.config import Config
from kvision.compat.matterport.dataset import Dataset
from kvision.models.detector import Detector
from tests.parity import numpy_matterport
from tests.parity.test_matterport import write

BLOCKS = (1, 1, 1, 1)
HEADS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]


class SmallConfig(Config):
    NAME = "Squares"
    BACKBONE = "resnet50"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 3
    STEPS_PER_EPOCH = 1
    VALIDATION_STEPS = 1
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 24, 32, 64)
    PRE_NMS_LIMIT = 60
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 30
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    TRAIN_ROIS_PER_IMAGE = 16
    MAX_GT_INSTANCES = 4
    DETECTION_MAX_INSTANCES = 6
    DETECTION_MIN_CONFIDENCE = 0.0


class OneByOne(SmallConfig):
    IMAGES_PER_GPU = 1


def with_settings(base: type[Config] = SmallConfig, **settings: Any) -> Config:
    """Make a configuration of a class with other attributes."""
    return type("Changed", (base,), settings)()


class Squares(Dataset):
    """Bright squares (class 1) and bars (class 2) on dark images of some sizes."""

    sizes = ((64, 64), (48, 60), (40, 32))

    def fill(self, count: int = 4, seed: int = 0) -> "Squares":
        self.add_class("toys", 1, "square")
        self.add_class("toys", 2, "bar")
        rng = np.random.default_rng(seed)
        for number in range(count):
            height, width = self.sizes[number % len(self.sizes)]
            objects = [
                (label, int(rng.integers(0, height - 20)), int(rng.integers(2, 8)))
                for label in (1, 2)
            ]
            self.add_image(
                "toys", number, None, height=height, width=width, objects=objects
            )
        self.prepare()
        return self

    def load_image(self, image_id: int) -> np.ndarray:
        info = self.image_info[image_id]
        image = np.full((info["height"], info["width"], 3), 30, np.uint8)
        masks, class_ids = self.load_mask(image_id)
        for number, label in enumerate(class_ids):
            image[masks[..., number]] = (230, 200, 40) if label == 1 else (40, 90, 250)
        return image

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        info = self.image_info[image_id]
        objects = info["objects"]
        masks = np.zeros((info["height"], info["width"], len(objects)), bool)
        for number, (label, top, left) in enumerate(objects):
            height, width = (16, 16) if label == 1 else (20, 7)
            left = left if label == 1 else left + 17
            masks[top : top + height, left : left + width, number] = True
        return masks, np.array([label for label, _, _ in objects], np.int32)


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Let a ResNet-50 have one block a stage, and training be without a graph.

    The names of its layers stay matterport's.
    """
    eagerly = functools.partialmethod(Detector.compile, run_eagerly=True)
    variants = importlib.import_module("kvision.models.resnet").VARIANTS
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants, "resnet50", BLOCKS)
        patch.setattr(Detector, "compile", eagerly)
        yield


def coco_tensors(num_classes: int = 80) -> dict[str, np.ndarray]:
    """Make what mask_rcnn_coco.h5 holds, for these blocks."""
    shapes = numpy_matterport.shapes(BLOCKS, num_classes)
    return {n: numpy_matterport.weights_for(n, s) for n, s in shapes.items()}


def write_coco(path: Path, num_classes: int = 80) -> dict[str, np.ndarray]:
    """Write such a file."""
    tensors = coco_tensors(num_classes)
    write(path, tensors)
    return tensors
