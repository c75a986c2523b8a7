"""Augmentation: small callables (sample, seed) -> sample, made of stateless ops.

Three kinds:

- moves (`HorizontalFlip`, `LargeScaleJitter`, ...) are affine maps. A pipeline
  composes all of them with the resizing to the model's input, so that the image is
  resampled once. Called on a sample they do the same at once.
- changes of colour (`Photometric`), or any function of yours with this signature,
  see the sample in the model's input size.
- `CopyPaste` takes objects from another sample of the batch, so it comes last.

Sample: see `kvision.data.warp`. Seed: (2,) int32 tensor, as for
`tf.random.stateless_uniform`; the same seed gives the same result.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from kvision.data.draws import fold, uniform
from kvision.data.warp import Sample, affine, warp

__all__ = [
    "CopyPaste",
    "HorizontalFlip",
    "LargeScaleJitter",
    "Photometric",
    "Rotate",
    "Rotate90",
    "VerticalFlip",
    "default_transforms",
]

Transform = Callable[[Sample, tf.Tensor], Sample]


class Move(ABC):
    """An affine map with random numbers, of an image of any size.

    Attributes:
        zoom: the most by which it magnifies.
        is_upright: whether it only scales and shifts.
    """

    zoom: float = 1.0
    is_upright: bool = False

    @abstractmethod
    def matrix(self, seed: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw a map.

        Args:
            seed: (2,) int32 tensor.
            size: (2,) float64 tensor: height and width of the image in pixels.

        Returns:
            (3, 3) float64 map of (x, y, 1), and the size of the result.
        """

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Move a sample: image, boxes and masks."""
        size = tf.cast(tf.shape(sample["images"])[:2], tf.float64)
        matrix, size = self.matrix(seed, size)
        return warp(sample, matrix, tf.cast(tf.round(size), tf.int32))


@dataclass(frozen=True)
class HorizontalFlip(Move):
    """Mirror left and right.

    Args:
        probability: of doing so.
    """

    probability: float = 0.5

    def matrix(self, seed: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw a map; see `Move`."""
        flipped = affine([[-1, 0, size[1]], [0, 1, 0]])
        return _maybe(self.probability, seed, flipped), size


@dataclass(frozen=True)
class VerticalFlip(Move):
    """Mirror top and bottom: for images without an up, as from a microscope.

    Args:
        probability: of doing so.
    """

    probability: float = 0.5

    def matrix(self, seed: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw a map; see `Move`."""
        flipped = affine([[1, 0, 0], [0, -1, size[0]]])
        return _maybe(self.probability, seed, flipped), size


@dataclass(frozen=True)
class Rotate90(Move):
    """Turn by 0, 90, 180 or 270 degrees, each as likely."""

    def matrix(self, seed: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw a map; see `Move`."""
        turns = tf.random.stateless_uniform([], seed, 0, 4, tf.int32)
        height, width = size[0], size[1]
        maps = tf.stack(
            [
                affine([[1, 0, 0], [0, 1, 0]]),
                affine([[0, 1, 0], [-1, 0, width]]),
                affine([[-1, 0, width], [0, -1, height]]),
                affine([[0, -1, height], [1, 0, 0]]),
            ]
        )
        return maps[turns], tf.where(turns % 2 == 0, size, tf.gather(size, (1, 0)))


@dataclass(frozen=True)
class Rotate(Move):
    """Turn by a small angle about the centre; corners without image become 0.

    Args:
        degrees: the largest angle, either way.
        probability: of doing so.
    """

    degrees: float = 10.0
    probability: float = 0.5

    def matrix(self, seed: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw a map; see `Move`."""
        largest = math.radians(self.degrees)
        (angle,) = uniform(fold(seed, 1), 1, -largest, largest)
        cos, sin = tf.cos(angle), tf.sin(angle)
        x, y = size[1] / 2, size[0] / 2
        turned = affine(
            [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]
        )
        return _maybe(self.probability, seed, turned), size


@dataclass(frozen=True)
class LargeScaleJitter(Move):
    """Scale the image, then crop or pad it to its old size at a random place.

    Ghiasi et al. 2021, Simple Copy-Paste, section 3: scales of 0.1 to 2 for training
    from scratch, 0.8 to 1.25 as "standard" jitter.

    Args:
        low: the smallest scale.
        high: the largest scale.
    """

    low: float = 0.1
    high: float = 2.0
    is_upright: ClassVar[bool] = True  # type: ignore[misc]

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(
                f"Expected 0 < low <= high. Received: low={self.low}, high={self.high}"
            )

    @property
    def zoom(self) -> float:  # type: ignore[override]
        """The most by which it magnifies."""
        return max(self.high, 1.0)

    def matrix(self, seed: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw a map; see `Move`."""
        scale, *place = uniform(seed, 3, 0.0, 1.0)
        scale = self.low + scale * (self.high - self.low)
        # Room to spare when the image is smaller, to be cut off when it is larger.
        y, x = (place[axis] * size[axis] * (1.0 - scale) for axis in (0, 1))
        return affine([[scale, 0, x], [0, scale, y]]), size


@dataclass(frozen=True)
class Photometric:
    """Vary brightness, contrast, saturation and hue; one product with a 3x3 matrix.

    Args:
        brightness: largest relative change; 0.2 multiplies by 0.8 to 1.2.
        contrast: largest relative change of the distance from the mean grey.
        saturation: largest relative change of the distance from grey.
        hue: largest turn of the colour circle, as a part of it: 0.02 is 7 degrees.
        probability: of doing so.

    The hue turns in the YIQ plane (Haeberli 1993, Matrix Operations for Image
    Processing).
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02
    probability: float = 0.8

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Change the colours of `images`; padding of 0 changes with the rest."""
        image = sample["images"]
        changed = tf.cond(
            uniform(seed, 1, 0.0, 1.0)[0] < self.probability,
            lambda: self._recolor(image, fold(seed, 1)),
            lambda: image,
        )
        return {**sample, "images": changed}

    def _recolor(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        amounts = uniform(seed, 4, -1.0, 1.0)
        brightness = 1.0 + amounts[0] * self.brightness
        contrast = 1.0 + amounts[1] * self.contrast
        colors = _color_matrix(
            1.0 + amounts[2] * self.saturation, amounts[3] * self.hue * 2.0 * math.pi
        )
        values = tf.cast(image, tf.float32)
        grey = tf.reduce_sum(tf.reduce_mean(values, axis=(0, 1)) * _LUMINANCE)
        colors = tf.cast(brightness * contrast * colors, tf.float32)
        offset = tf.cast(brightness * (1.0 - contrast), tf.float32) * grey
        values = tf.clip_by_value(tf.tensordot(values, colors, 1) + offset, 0.0, 255.0)
        return tf.cast(values if image.dtype.is_floating else values + 0.5, image.dtype)


@dataclass(frozen=True)
class CopyPaste:
    """Paste objects of another sample of the batch, in their places, over this one.

    Ghiasi et al. 2021, Simple Copy-Paste Is a Strong Data Augmentation Method for
    Instance Segmentation. What is covered leaves the masks beneath; an object that
    is covered altogether goes.

    Args:
        probability: that a sample receives objects.
        share: probability of each object of the other sample to be taken.
        max_objects: at most so many are taken; each costs an image of memory.
    """

    probability: float = 0.5
    share: float = 0.5
    max_objects: int = 20

    def __call__(self, sample: Sample, seed: tf.Tensor, donor: Sample) -> Sample:
        """Paste objects of `donor`, a sample of the same shapes, into `sample`."""
        from kvision.data.copy_paste import paste

        chance, picks = uniform(seed, 1, 0.0, 1.0)[0], fold(seed, 1)
        number = tf.shape(donor["gt_labels"])[0]
        draws = tf.random.stateless_uniform([number], picks)
        is_picked = (draws < self.share) & (chance < self.probability)
        return paste(sample, donor, is_picked, self.max_objects)


def default_transforms() -> list[Any]:
    """Return what `augment=True` stands for.

    Mirroring, scales of 0.5 to 1.5 with crop, and mild changes of colour: safe for
    photographs of things. Add `VerticalFlip` and `Rotate90` where there is no up,
    leave `HorizontalFlip` out where sides matter (text).
    """
    return [HorizontalFlip(), LargeScaleJitter(0.5, 1.5), Photometric()]


def compose(
    moves: Sequence[Move], seed: tf.Tensor, size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw all moves, each with a seed of its own, and multiply their maps.

    Args:
        moves: in the order in which they act.
        seed: (2,) int32 tensor.
        size: (2,) float64 tensor: height and width of the image in pixels.

    Returns:
        (3, 3) float64 map and the (2,) size of the result.
    """
    matrix = tf.eye(3, dtype=tf.float64)
    for number, move in enumerate(moves):
        step, size = move.matrix(fold(seed, number), size)
        matrix = step @ matrix
    return matrix, size


_LUMINANCE = (0.299, 0.587, 0.114)
_YIQ = (
    _LUMINANCE,
    (0.595716, -0.274453, -0.321263),
    (0.211456, -0.522591, 0.311135),
)


def _color_matrix(saturation: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """Make the (3, 3) matrix that takes rows of RGB to rows of changed RGB."""
    to_yiq = tf.transpose(tf.constant(_YIQ, tf.float64))
    cos, sin = saturation * tf.cos(angle), saturation * tf.sin(angle)
    change = affine([[1, 0, 0], [0, cos, sin]])
    change = tf.concat([change[:2], [tf.stack([tf.zeros_like(cos), -sin, cos])]], 0)
    return to_yiq @ change @ tf.linalg.inv(to_yiq)


def _maybe(probability: float, seed: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    (chance,) = uniform(seed, 1, 0.0, 1.0)
    return tf.where(chance < probability, matrix, tf.eye(3, dtype=tf.float64))
