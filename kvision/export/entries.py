"""What an exported model takes: the names, shapes and dtypes of its inputs."""

from typing import Any

import tensorflow as tf

__all__ = ["entries"]


def entries(model: Any, batch_size: int | None = None) -> dict[str, tf.TensorSpec]:
    """Say what an exported model takes.

    Args:
        model: a detector, or a `Classifier`.
        batch_size: images at once; None for any number.

    Returns:
        "images" (B, H, W, C) uint8, and of a classifier that takes boxes of interest
        "regions" (B, num_regions, 4) float32.
    """
    shape = (batch_size, *model.image_size, model.num_channels)
    specs = {"images": tf.TensorSpec(shape, tf.uint8, name="images")}
    if num_regions := getattr(model, "num_regions", 0):
        shape = (batch_size, num_regions, 4)
        specs["regions"] = tf.TensorSpec(shape, tf.float32, name="regions")
    return specs
