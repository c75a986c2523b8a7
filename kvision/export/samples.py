"""The images on which an exported form is compared with its model."""

from collections.abc import Iterable
from os import PathLike
from typing import Any

import numpy as np
import tensorflow as tf

from kvision.export.precision import image_batches
from kvision.export.preprocessing import decode, prepared

__all__ = ["calibration_images", "comparison_images", "fitted", "generated_regions"]

Array = np.ndarray

_NUM_GENERATED = 8


def comparison_images(model: Any, images: Any, num_images: int = 16) -> list[Array]:
    """Collect photos of any size for a comparison.

    Args:
        model: the detector or `Classifier`.
        images: paths, arrays (H, W, C) or (N, H, W, C) in 0..255, an iterable of those
            or of batches (images, targets); None generates some.
        num_images: the largest number of images.

    Returns:
        (h, w, C) uint8 arrays.
    """
    if images is None:
        return generated_images(model)
    found: list[Array] = []
    for image in _images(images, model.num_channels):
        found.append(image)
        if len(found) == num_images:
            break
    if not found:
        raise ValueError("images= holds no image")
    return found


def calibration_images(model: Any, calibration: Any, num_images: int = 100) -> Array:
    """Collect the images from which int8 learns the ranges of activations.

    Args:
        model: the detector or `Classifier`.
        calibration: as `images` of `comparison_images`, but not None.
        num_images: the largest number of images.

    Returns:
        (N, H, W, C) uint8 array of the model's input size.

    Raises:
        ValueError: there is no calibration data, or its values are not 0..255.
    """
    if calibration is None:
        raise ValueError(
            'quantize="int8" needs calibration=: a data set of (images, targets) as '
            "kvision.data makes them, or an array of images, of the kind the model "
            "will see. The ranges of all activations are taken from it. Without such "
            'images use quantize="dynamic".'
        )
    images = fitted(model, comparison_images(model, calibration, num_images))
    if images.max() <= 1:
        raise ValueError(
            "calibration= must hold images with values 0..255. The largest value "
            f"received is {images.max()}"
        )
    return images


def fitted(model: Any, images: Iterable[Array]) -> Array:
    """Bring images of any size to the model's input.

    Args:
        model: the detector or `Classifier`.
        images: (h, w, C) uint8 arrays.

    Returns:
        (N, H, W, C) uint8 array.
    """
    return np.stack([prepared(model, tf.constant(i)).numpy() for i in images])


def generated_images(model: Any) -> list[Array]:
    """Draw pictures of rectangles and ellipses, each of another size.

    Args:
        model: the detector or `Classifier`: its input size and channels.

    Returns:
        (h, w, C) uint8 arrays; the first has the size of the input.
    """
    rng = np.random.default_rng(0)
    height, width = model.image_size
    images = []
    for number in range(_NUM_GENERATED):
        stretch = rng.uniform(0.6, 1.6, 2) if number else np.ones(2)
        size = (int(height * stretch[0]), int(width * stretch[1]))
        images.append(_picture(rng, size, model.num_channels))
    return images


def generated_regions(
    number: int, num_regions: int, image_size: tuple[int, int]
) -> Array:
    """Draw boxes of interest, in each image another number of them.

    Args:
        number: of images.
        num_regions: rows of each image.
        image_size: (height, width) of the images in pixels.

    Returns:
        (number, num_regions, 4) float32 array, rows of zeros as padding.
    """
    rng = np.random.default_rng(0)
    height, width = image_size
    corners = np.sort(rng.uniform(0, 1, (number, num_regions, 2, 2)), axis=2)
    boxes = (corners * [width, height]).reshape(number, num_regions, 4)
    is_box = np.arange(num_regions) <= rng.integers(0, num_regions, (number, 1))
    return np.where(is_box[..., None], boxes, 0).astype(np.float32)


def _picture(rng: np.random.Generator, size: tuple[int, int], channels: int) -> Array:
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    slope = rng.uniform(-40, 40, 2)
    image = rng.uniform(60, 140, channels) + rng.normal(0, 12, (*size, channels))
    image += (slope[0] * y / height + slope[1] * x / width)[..., None]
    for _ in range(rng.integers(4, 9)):
        centre, half = rng.uniform(0, size), rng.uniform(0.03, 0.25, 2) * min(size)
        v, u = np.abs(y - centre[0]) / half[0], np.abs(x - centre[1]) / half[1]
        inside = u * u + v * v < 1 if rng.random() < 0.5 else np.maximum(u, v) < 1
        image[inside] = rng.uniform(0, 255, channels) + rng.normal(0, 12)
    return np.clip(image, 0, 255).astype(np.uint8)


def _images(source: Any, num_channels: int) -> Iterable[Array]:
    """Take apart whatever holds images."""
    if isinstance(source, str | PathLike):
        yield decode(tf.io.read_file(str(source)), num_channels).numpy()
    elif isinstance(source, tf.data.Dataset):
        for images, _ in image_batches(source, num_images=1 << 30):
            yield from images
    elif hasattr(source, "__array__"):
        yield from _from_array(np.asarray(source), num_channels)
    elif _is_batch(source):
        yield from _images(source[0], num_channels)  # a batch of (images, targets)
    elif isinstance(source, Iterable):
        for item in source:
            yield from _images(item, num_channels)
    else:
        raise ValueError(
            "Expected images as paths, arrays or a data set. Received: "
            f"{type(source).__name__}"
        )


def _is_batch(source: Any) -> bool:
    """Tell a batch of (images, targets) from two images."""
    if not isinstance(source, tuple) or len(source) != 2:
        return False
    images, targets = source
    return isinstance(targets, dict) or (
        np.ndim(images) == 4 and np.ndim(targets) in (1, 2)
    )


def _from_array(array: Array, num_channels: int) -> Iterable[Array]:
    if array.ndim not in (3, 4) or array.shape[-1] != num_channels:
        raise ValueError(
            f"Expected images (H, W, {num_channels}) or (N, H, W, {num_channels}). "
            f"Received an array of shape {array.shape}"
        )
    array = np.clip(np.rint(array), 0, 255).astype(np.uint8)
    return array if array.ndim == 4 else array[None]
