"""Photos to a classifier's input size: the one rule, as Pillow does it.

What a classifier saw in training it must see in prediction and behind a server. So the
training pipeline and prediction call `prepare_image`, which lets Pillow resample;
exported graphs, where no Python runs, call its twin `kvision.ops.preparation`. A model
says in its layer "preprocessing" which way it wants:

- "crop": the short side is brought to `image_size / crop_fraction`, the middle is cut
  out (torchvision's Resize and CenterCrop, timm's `crop_pct`);
- "stretch": the whole photo is squashed into the input;
- "pad": the whole photo keeps its aspect ratio; 0 fills the bottom and the right.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from kvision.data.images import resized_size
from kvision.ops.preparation import (
    Interpolation,
    Preparation,
    check_preparation,
    covering,
    enlarged,
    is_y_first,
)

__all__ = ["Interpolation", "Preparation", "prepare_image", "resize_pixels"]

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_LARGEST = 16  # times the pixels that are kept; beyond it only those are computed


def prepare_image(
    image: np.ndarray,
    image_size: tuple[int, int],
    resize: Preparation = "crop",
    crop_fraction: float = 0.875,
    interpolation: Interpolation = "bicubic",
) -> np.ndarray:
    """Bring a photo to a classifier's input size.

    Args:
        image: (h, w, C) uint8 array, C 1 or 3, upright.
        image_size: (height, width) of the model's input in pixels.
        resize: "crop", "stretch" or "pad", as above.
        crop_fraction: how much of the short side "crop" keeps, above 0 and up to 1.
        interpolation: "bicubic" or "bilinear", widened where the image shrinks.

    Returns:
        (H, W, C) uint8 array: bit for bit what Pillow's resizing gives.

    Raises:
        ValueError: an argument does not fit, or `image` is no uint8 picture.
    """
    check_preparation(image_size, resize, crop_fraction, interpolation)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(
            "image must be a (height, width, 1 or 3) uint8 array. Received: "
            f"shape={image.shape}, dtype={image.dtype}"
        )
    if not image.size:
        raise ValueError(f"image has no pixels. Received: shape={image.shape}")
    if resize == "stretch":
        return resize_pixels(image, image_size, interpolation)
    if resize == "pad":
        size = resized_size(image.shape[0], image.shape[1], image_size, "pad")
        rest = [(0, goal - side) for goal, side in zip(image_size, size, strict=True)]
        return np.pad(resize_pixels(image, size, interpolation), (*rest, (0, 0)))
    return _resize_and_crop(image, image_size, crop_fraction, interpolation)


def resize_pixels(
    image: np.ndarray, size: tuple[int, int], interpolation: Interpolation = "bicubic"
) -> np.ndarray:
    """Resample a picture with Pillow.

    Args:
        image: (h, w, C) uint8 array, C 1 or 3.
        size: (height, width) of the result in pixels.
        interpolation: "bicubic" or "bilinear", widened where the image shrinks.

    Returns:
        (H, W, C) uint8 array.
    """
    return _resize(image, size, interpolation, None)


class _Window(NamedTuple):
    """Where in the resized picture the result is cut out."""

    whole: tuple[int, int]
    first: tuple[int, int]


def _resize_and_crop(
    image: np.ndarray,
    image_size: tuple[int, int],
    crop_fraction: float,
    interpolation: Interpolation,
) -> np.ndarray:
    height, width = image_size
    goal = enlarged(image_size, crop_fraction)
    whole = covering(image.shape[0], image.shape[1], goal)
    top, left = round((whole[0] - height) / 2), round((whole[1] - width) / 2)
    if math.prod(whole) > _LARGEST * math.prod(goal):
        # A strip: all of it, enlarged, might not fit into memory.
        return _resize(image, image_size, interpolation, _Window(whole, (top, left)))
    resized = resize_pixels(image, whole, interpolation)
    return resized[top : top + height, left : left + width]


def _resize(
    image: np.ndarray,
    size: tuple[int, int],
    interpolation: Interpolation,
    window: _Window | None,
) -> np.ndarray:
    pixels = image[..., 0] if image.shape[2] == 1 else image
    old = image.shape[:2]
    whole, first = window or _Window(size, (0, 0))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    now = list(old)
    # One axis at a time, in the order of Pillow 13, so that older ones give the same.
    for axis in (0, 1) if is_y_first(old, whole) else (1, 0):
        scale = old[axis] / whole[axis]
        low, high = first[axis] * scale, (first[axis] + size[axis]) * scale
        box = (low, 0, high, now[0]) if axis else (0, low, now[1], high)
        now[axis] = size[axis]
        picture = picture.resize((now[1], now[0]), _FILTERS[interpolation], box=box)
    return np.asarray(picture).reshape(*size, image.shape[2])
