"""How images are brought to the model's input: the four modes of IMAGE_RESIZE_MODE.

Where an image lands is matterport's rule; pixels are resampled as everywhere in
kvision (it used scikit-image, without widening the filter when an image shrinks).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from kvision.compat.matterport.config import Config
from kvision.data.draws import whole
from kvision.data.images import resample
from kvision.data.transforms import Move
from kvision.data.warp import affine

__all__ = ["Molded", "Molding", "mold", "mold_masks", "molding_of", "resize_image"]

Array = np.ndarray
Window = tuple[int, int, int, int]

_GRANULE = 64


class Molded(NamedTuple):
    """An image in the model's input, and where it is there.

    Attributes:
        image: (H, W, 3) uint8 array.
        window: (y1, x1, y2, x2) of the image within it, padding excluded.
        scale: by how much it was enlarged.
        offset: (y, x) of its first pixel; negative where it is cropped.
        resized: (height, width) before it was padded or cropped.
    """

    image: Array
    window: Window
    scale: float
    offset: tuple[int, int]
    resized: tuple[int, int]


@dataclass(frozen=True)
class Molding(Move):
    """Enlarge an image and pad or crop it.

    Args:
        mode: "square", "pad64", "crop" or "none".
        min_dim: what the shorter side shall have at least, in pixels; None for any.
        max_dim: what the longer side may have at most in mode "square", and the side
            of its result.
        min_scale: by how much to enlarge at least.

    Source: matterport/Mask_RCNN, mrcnn/utils.py, resize_image.
    """

    mode: str
    min_dim: int | None
    max_dim: int | None
    min_scale: float | None = None
    is_upright: ClassVar[bool] = True  # type: ignore[misc]

    def matrix(self, seed: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Make the map; see `Move`. Only a crop draws."""
        _, resized, frame, offset = self.place(seed, size)
        scale = resized / size
        rows = [[scale[1], 0, offset[1]], [0, scale[0], offset[0]]]
        return affine(rows), frame

    def place(self, seed: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Say where an image goes.

        Args:
            seed: (2,) int32 tensor.
            size: (2,) float64 tensor: height and width of the image in pixels.

        Returns:
            Scale, and three (2,) float64 tensors (y, x): size of the enlarged image,
            size of the result, and where the image begins in it.
        """
        scale = self._scale(size)
        resized = tf.round(size * scale)
        if self.mode == "crop":
            frame = tf.fill([2], tf.cast(self.min_dim, tf.float64))
            room = tf.cast(resized - frame, tf.int32)
            return scale, resized, frame, -tf.cast(whole(seed, room), tf.float64)
        frame = resized
        if self.mode == "square":
            frame = tf.fill([2], tf.cast(self.max_dim, tf.float64))
        if self.mode == "pad64":
            frame = tf.math.ceil(resized / _GRANULE) * _GRANULE
        return scale, resized, frame, tf.floor((frame - resized) / 2)

    def _scale(self, size: tf.Tensor) -> tf.Tensor:
        one = tf.constant(1.0, tf.float64)
        if self.mode == "none":
            return one
        scale = tf.maximum(one, (self.min_dim or 0) / tf.reduce_min(size))
        scale = tf.maximum(scale, tf.cast(self.min_scale or 0, tf.float64))
        if self.mode == "square" and self.max_dim:
            longest = tf.reduce_max(size)
            is_too_long = tf.round(longest * scale) > self.max_dim
            scale = tf.where(is_too_long, self.max_dim / longest, scale)
        return scale


def molding_of(config: Config) -> Molding:
    """Return the rule of a configuration.

    Args:
        config: the configuration.

    Returns:
        The rule.
    """
    return Molding(
        config.IMAGE_RESIZE_MODE,
        config.IMAGE_MIN_DIM,
        config.IMAGE_MAX_DIM,
        config.IMAGE_MIN_SCALE,
    )


def mold(image: Array, molding: Molding) -> Molded:
    """Bring an image to the model's input; a crop is drawn with `np.random`.

    Args:
        image: (h, w, 3) uint8 array.
        molding: the rule.

    Returns:
        The image there.
    """
    seed = tf.constant(np.random.randint(2**31, size=2), tf.int32)
    size = tf.constant(image.shape[:2], tf.float64)
    scale, *placed = molding.place(seed, size)
    whole_numbers = (value.numpy().astype(int).tolist() for value in placed)
    resized, frame, (top, left) = whole_numbers
    small = resample(tf.convert_to_tensor(image), tf.constant(resized)).numpy()
    result = _framed(small, frame, (top, left))
    y1, x1 = max(0, top), max(0, left)
    y2, x2 = min(frame[0], top + resized[0]), min(frame[1], left + resized[1])
    return Molded(
        result, (y1, x1, y2, x2), float(scale), (top, left), (resized[0], resized[1])
    )


def mold_masks(masks: Array, molded: Molded) -> Array:
    """Move masks as their image was, by the nearest pixel.

    Args:
        masks: (h, w, N) bool array.
        molded: their image.

    Returns:
        (H, W, N) bool array.
    """
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(molded.resized, masks.shape[:2], strict=True)
    )
    moved = masks[rows][:, columns]
    return _framed(moved, molded.image.shape[:2], molded.offset)


def resize_image(
    image: Array,
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
) -> tuple[Array, Window, float, list[tuple[int, int]], Window | None]:
    """Bring an image to the model's input, as old scripts call it.

    Args:
        image: (h, w, 3) uint8 array.
        min_dim: see `Molding`.
        max_dim: see `Molding`.
        min_scale: see `Molding`.
        mode: see `Molding`.

    Returns:
        Image, window, scale, padding [(top, bottom), (left, right), (0, 0)] and crop
        (y, x, height, width), which is None but in mode "crop".
    """
    molded = mold(image, Molding(mode, min_dim, max_dim, min_scale))
    (height, width), (top, left) = molded.image.shape[:2], molded.offset
    if mode == "crop":
        crop = (-top, -left, height, width)
        return molded.image, molded.window, molded.scale, [(0, 0)] * 3, crop
    bottom, right = height - top - molded.resized[0], width - left - molded.resized[1]
    padding = [(top, bottom), (left, right), (0, 0)]
    return molded.image, molded.window, molded.scale, padding, None


def _framed(values: Array, size: tuple[int, ...], offset: tuple[int, int]) -> Array:
    """Lay (h, w, C) values into zeros of a size; what is outside is cut off."""
    (height, width), (top, left) = size, offset
    cut = values[max(0, -top) :, max(0, -left) :][:height, :width]
    result = np.zeros((height, width, values.shape[2]), values.dtype)
    top, left = max(0, top), max(0, left)
    result[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return result
