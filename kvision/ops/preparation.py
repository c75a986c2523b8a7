"""Photos to a classifier's input size in a TensorFlow graph, where no Python runs.

The twin of `kvision.data.preparation.prepare_image`, which lets Pillow resample, for
exported models that take photos of any size. Equal within one grey level.

Pillow resamples along one axis, rounds to 8 bits, then resamples along the other: x
first, but y first where the height shrinks by much more than the width. Without both a
bicubic filter is up to 18 grey levels off where contrasts are hard. (The order is that
of Pillow 13, `libImaging/Resample.c`.)
"""

import math
from typing import Any, Literal

import tensorflow as tf

__all__ = ["Interpolation", "Preparation", "prepare_tensor", "resize_tensor"]

Preparation = Literal["crop", "stretch", "pad"]
Interpolation = Literal["bicubic", "bilinear"]

_TIE = 3e-5  # sums of float32 that should end in .5 fall short of it by less


def prepare_tensor(
    image: tf.Tensor,
    image_size: tuple[int, int],
    resize: Preparation = "crop",
    crop_fraction: float = 0.875,
    interpolation: Interpolation = "bicubic",
) -> tf.Tensor:
    """Bring a photo of any size to a classifier's input size.

    Args:
        image: (h, w, C) uint8 tensor; h and w need not be known.
        image_size: (height, width) of the model's input in pixels.
        resize: "crop" brings the short side to `image_size / crop_fraction` and cuts
            the middle out, "stretch" squashes, "pad" keeps the aspect ratio and fills
            up with 0 at the bottom and the right.
        crop_fraction: how much of the short side "crop" keeps, above 0 and up to 1.
        interpolation: "bicubic" or "bilinear", widened where the image shrinks.

    Returns:
        (H, W, C) uint8 tensor, within one grey level of
        `kvision.data.preparation.prepare_image`.

    Raises:
        ValueError: an argument does not fit.
    """
    check_preparation(image_size, resize, crop_fraction, interpolation)
    goal = tf.constant(image_size, tf.int32)
    channels = image.shape[-1]
    old = tf.shape(image)[:2]
    if resize == "stretch":
        image = resize_tensor(image, goal, interpolation)
    elif resize == "pad":
        ratio = tf.reduce_min(tf.cast(goal, tf.float64) / tf.cast(old, tf.float64))
        size = tf.cast(tf.floor(tf.cast(old, tf.float64) * ratio + 0.5), tf.int32)
        size = tf.maximum(size, 1)
        image = resize_tensor(image, size, interpolation)
        rest = goal - size
        image = tf.pad(image, [[0, rest[0]], [0, rest[1]], [0, 0]])
    else:
        size = _covering_tensor(old, enlarged(image_size, crop_fraction))
        image = resize_tensor(image, size, interpolation)
        # Half to even, as Python rounds.
        first = tf.cast(tf.round(tf.cast(size - goal, tf.float64) / 2.0), tf.int32)
        image = tf.slice(image, [first[0], first[1], 0], [*image_size, -1])
    return tf.ensure_shape(image, (*image_size, channels))


def resize_tensor(
    image: tf.Tensor, size: tf.Tensor, interpolation: Interpolation = "bicubic"
) -> tf.Tensor:
    """Resample as Pillow does, in two passes, rounded after each.

    Args:
        image: (h, w, C) uint8 tensor.
        size: (2,) int32 tensor (height, width).
        interpolation: "bicubic" or "bilinear", widened where the image shrinks.

    Returns:
        (H, W, C) uint8 tensor, within one grey level of `PIL.Image.resize`.
    """
    old = tf.shape(image)[:2]
    between = tf.where(
        is_y_first(old, size),
        tf.stack([size[0], old[1]]),
        tf.stack([old[0], size[1]]),
    )
    values = _pass(_pass(image, between, interpolation), size, interpolation)
    return tf.cast(values, tf.uint8)


def check_preparation(
    image_size: tuple[int, int], resize: str, crop_fraction: float, interpolation: str
) -> None:
    """Refuse arguments that do not fit, with a `ValueError` that names them."""
    if len(image_size) != 2 or min(image_size) < 1:
        _refuse("image_size", "(height, width) in pixels", image_size)
    if resize not in ("crop", "stretch", "pad"):
        _refuse("resize", '"crop", "stretch" or "pad"', resize)
    if not 0.0 < crop_fraction <= 1.0:
        _refuse("crop_fraction", "above 0 and at most 1", crop_fraction)
    if interpolation not in ("bicubic", "bilinear"):
        _refuse("interpolation", '"bicubic" or "bilinear"', interpolation)


def enlarged(image_size: tuple[int, int], crop_fraction: float) -> tuple[int, int]:
    """Size whose middle "crop" cuts out; rounded down, as timm does."""
    height, width = (math.floor(side / crop_fraction) for side in image_size)
    return height, width


def covering(height: int, width: int, goal: tuple[int, int]) -> tuple[int, int]:
    """Smallest size of this aspect ratio that covers `goal`; torchvision's rounding."""
    if goal[0] * width >= goal[1] * height:
        return goal[0], goal[0] * width // height
    return goal[1] * height // width, goal[1]


def is_y_first(old: Any, new: Any) -> Any:
    """Whether Pillow resamples along y first; (height, width) numbers or tensors."""
    return (new[0] < old[0]) & (old[0] - new[0] > 2 * (old[1] - new[1]))


def _refuse(name: str, expected: str, received: Any) -> None:
    raise ValueError(f"{name} must be {expected}. Received: {name}={received!r}")


def _covering_tensor(old: tf.Tensor, goal: tuple[int, int]) -> tf.Tensor:
    height, width = tf.unstack(tf.cast(old, tf.int64))
    rows, columns = (tf.constant(side, tf.int64) for side in goal)
    size = tf.cond(
        rows * width >= columns * height,
        lambda: tf.stack([rows, rows * width // height]),
        lambda: tf.stack([columns * height // width, columns]),
    )
    return tf.cast(size, tf.int32)


def _pass(image: tf.Tensor, size: tf.Tensor, interpolation: str) -> tf.Tensor:
    """Resample along one axis; whole numbers in, whole numbers out (float32)."""
    resized = tf.image.resize(image, size, interpolation, antialias=True)
    return tf.clip_by_value(tf.floor(resized + (0.5 + _TIE)), 0.0, 255.0)
