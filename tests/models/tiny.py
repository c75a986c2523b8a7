"""A detector that trains in seconds, and batches of blocks for it."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kvision

IMAGE_SIZE = (64, 96)
CLASS_NAMES = ["block", "bar"]


def tiny_backbone(
    image_size: tuple[int, int] = IMAGE_SIZE, num_channels: int = 3, dtype: Any = None
) -> keras.Model:
    """Five strided convolutions with batch normalisation: C2 to C5."""
    images = x = keras.Input((*image_size, num_channels), name="images")
    features = {}
    for level in range(1, 6):
        x = keras.layers.Conv2D(
            4 + 4 * level,
            3,
            2,
            padding="same",
            use_bias=False,
            dtype=dtype,
            name=f"conv{level}",
        )(x)
        x = keras.layers.BatchNormalization(dtype=dtype, name=f"bn{level}")(x)
        x = keras.layers.ReLU(dtype=dtype, name=f"relu{level}")(x)
        if level > 1:
            features[f"C{level}"] = x
    return keras.Model(images, features, name="tiny")


SMALL: dict[str, Any] = {
    "pyramid_channels": 32,
    "anchor_sizes": (8, 16, 32, 48, 64),
    "rpn_pre_nms_top_k": 50,
    "rpn_post_nms_top_k": 50,
    "rpn_train_pre_nms_top_k": 100,
    "rpn_train_post_nms_top_k": 100,
    "rpn_num_samples": 64,
    "roi_canonical_size": 32.0,
    "box_hidden_dim": 32,
    "box_num_samples": 32,
    "mask_channels": 16,
    "mask_num_convs": 1,
    "max_detections": 10,
}


def tiny_mask_rcnn(
    image_size: tuple[int, int] = IMAGE_SIZE, num_channels: int = 3, **arguments: Any
) -> kvision.models.Detector:
    backbone = arguments.pop("backbone", None)
    if backbone is None:
        dtype = arguments.get("dtype")
        backbone = tiny_backbone(image_size, num_channels, dtype)
        arguments.setdefault("normalization", (127.5, 127.5))
    return kvision.models.mask_rcnn(
        backbone,
        **{
            "class_names": CLASS_NAMES,
            "image_size": image_size,
            "num_channels": num_channels,
            **SMALL,
            **arguments,
        },
    )


def blocks(
    num_images: int = 4,
    image_size: tuple[int, int] = IMAGE_SIZE,
    num_channels: int = 3,
    max_objects: int = 3,
    seed: int = 0,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw filled blocks and hollow bars, each with a mask, and one row of padding."""
    rng = np.random.default_rng(seed)
    height, width = image_size
    images = rng.integers(0, 60, (num_images, height, width, num_channels))
    boxes = np.zeros((num_images, max_objects + 1, 4), np.float32)
    labels = np.full((num_images, max_objects + 1), -1, np.int32)
    masks = np.zeros((num_images, max_objects + 1, 28, 28), np.uint8)
    cell = width // max_objects
    for i in range(num_images):
        for j in range(rng.integers(1, max_objects + 1)):
            w, h = rng.integers(16, cell - 2), rng.integers(16, height // 2)
            x, y = j * cell + rng.integers(0, cell - w), rng.integers(0, height - h)
            label = rng.integers(0, 2)
            colour = rng.integers(150, 256, num_channels)
            images[i, y : y + h, x : x + w] = colour
            masks[i, j] = 255
            if label == 1:  # hollow
                a, b = (
                    slice(y + h // 4, y + h * 3 // 4),
                    slice(x + w // 4, x + w * 3 // 4),
                )
                images[i, a, b] = 30
                masks[i, j, 7:21, 7:21] = 0
            boxes[i, j], labels[i, j] = (x, y, x + w, y + h), label
    targets = {"gt_boxes": boxes, "gt_labels": labels, "gt_masks": masks}
    return images.astype(np.uint8), targets


def dataset(
    images: np.ndarray, targets: dict[str, np.ndarray], batch_size: int = 2
) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((images, targets)).batch(batch_size)
