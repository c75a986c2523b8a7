"""A small detector whose random heads detect: many boxes, scores well apart."""

from typing import Any

import keras
import numpy as np

import kvision

IMAGE_SIZE = (64, 96)
CLASS_NAMES = ["disc", "square", "triangle"]


def tiny_backbone(
    channels: int = 8, num_channels: int = 3, dtype: str = "float32"
) -> keras.Model:
    """Five convolutions: features C2 to C5."""
    images = keras.Input((*IMAGE_SIZE, num_channels))
    hidden, features = images, {}
    for level in range(1, 6):
        hidden = keras.layers.Conv2D(
            channels * level,
            3,
            strides=2,
            padding="same",
            activation="relu",
            dtype=dtype,
            name=f"conv_{level}",
        )(hidden)
        if level >= 2:
            features[f"C{level}"] = hidden
    return keras.Model(images, features, name="tiny")


def small_detector(masks: bool = True, **arguments: Any) -> keras.Model:
    """Build it; every weight is a function of its shape and place."""
    keras.utils.set_random_seed(1)
    channels = arguments.get("num_channels", 3)
    settings = {
        "backbone": tiny_backbone(num_channels=channels),
        "normalization": (127.5, 64.0),
        "class_names": CLASS_NAMES,
        "image_size": IMAGE_SIZE,
        "anchor_sizes": (8, 16, 32, 64, 96),
        "pyramid_channels": 16,
        "rpn_pre_nms_top_k": 100,
        "rpn_post_nms_top_k": 30,
        "box_hidden_dim": 32,
        "max_detections": 20,
    }
    if masks:
        settings["mask_channels"] = 8
    build = kvision.models.mask_rcnn if masks else kvision.models.faster_rcnn
    model = build(**settings | arguments)
    rng = np.random.default_rng(2)
    rpn, box_head = model.get_layer("rpn"), model.get_layer("box_head")
    scales = {rpn.objectness: 2.0, rpn.deltas: 0.2, box_head.classes: 1.0}
    scales[box_head.deltas] = 0.3
    if masks:
        mask_head = model.get_layer("mask_head")
        mask_head.class_kernel.assign(rng.normal(0, 3, mask_head.class_kernel.shape))
    for layer, scale in scales.items():
        kernel = rng.normal(0, scale, layer.kernel.shape)
        layer.kernel.assign(kernel)
    return model


def textured_images(
    number: int = 4, size: tuple[int, int] = IMAGE_SIZE, channels: int = 3
) -> np.ndarray:
    """Images (N, H, W, C) uint8 of bright and dark blocks."""
    rng = np.random.default_rng(3)
    cells = rng.integers(0, 256, (number, -(-size[0] // 8), -(-size[1] // 8), channels))
    blocks = cells.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]
    return np.clip(blocks + rng.normal(0, 8, blocks.shape), 0, 255).astype(np.uint8)
