"""kvision's Mask R-CNN ResNet-50 FPN on an image of 800 x 1088."""

import argparse
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import kvision as kv
from benchmarks.turns import take_turns
from kvision.models.rcnn_conventions import TORCHVISION_V1

Work = Callable[[], object]

_NAMES = [str(number) for number in range(90)]
_NUM_OBJECTS = 10
_SIZE = (800, 1088)


def build(dtype: str | None = None) -> keras.Model:
    """Build a model whose weights are all random: zeros would fold away."""
    model = kv.models.mask_rcnn(
        "resnet50",
        class_names=_NAMES,
        image_size=_SIZE,
        freeze_batch_norm=True,
        dtype=dtype,
        **TORCHVISION_V1,
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "variance" not in weight.path:
            weight.assign_add(rng.normal(0, 0.002, weight.shape))
    return model


def infer(precision: str) -> Work:
    """Return a function that detects objects and pastes their masks."""
    model = kv.models.for_inference(build(), precision)
    image = np.random.default_rng(1).integers(0, 256, (*_SIZE, 3), dtype=np.uint8)

    def run() -> object:
        (detections,) = kv.detect(model, image, 0.0)
        return detections.masks

    return run


def train(precision: str) -> Work:
    """Return a function that takes a step."""
    model = build("mixed_bfloat16" if precision == "bfloat16" else "float32")
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9))
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, (900, 600), (1, _NUM_OBJECTS, 2))
    sizes = rng.uniform(40, 140, (1, _NUM_OBJECTS, 2))
    targets = {
        "gt_boxes": np.concatenate([corners, corners + sizes], -1).astype(np.float32),
        "gt_labels": np.zeros((1, _NUM_OBJECTS), np.int32),
        "gt_masks": np.full((1, _NUM_OBJECTS, 28, 28), 255, np.uint8),
    }
    image = tf.random.uniform((1, *_SIZE, 3), 0, 255)
    return lambda: model.train_on_batch(image, targets)


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", required=True)
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    take_turns(lambda: (train if arguments.train else infer)(arguments.precision))


if __name__ == "__main__":
    main()
