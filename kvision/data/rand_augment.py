"""RandAugment: a few random changes of one common strength."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kvision.data import pixel_ops
from kvision.data.draws import fold, uniform
from kvision.data.warp import Sample
from kvision.ops.preparation import Interpolation

__all__ = ["RAND_AUGMENT_OPS", "RandAugment"]

Op = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

_STRONGEST = 10.0


@dataclass(frozen=True)
class RandAugment:
    """Apply `num_ops` operations, drawn with replacement, each with a probability.

    The defaults are DeiT's, timm's `rand-m9-mstd0.5-inc1`: 15 operations, all of which
    grow stronger with the magnitude.

    Args:
        magnitude: strength, 0 to 10.
        magnitude_std: standard deviation of the strength, drawn for each operation and
            clipped to 0..10.
        num_ops: operations drawn for an image.
        probability: with which each of them is applied.
        interpolation: of rotation, shear and translation.
        fill: colour that moves into the image; by default the mean of ImageNet.

    Cubuk et al. 2019, RandAugment; operations and levels: timm/data/auto_augment.py.
    Posterisation keeps at least one bit (timm's can keep none, a black image, which
    Pillow 13 refuses).
    """

    magnitude: float = 9.0
    magnitude_std: float = 0.5
    num_ops: int = 2
    probability: float = 0.5
    interpolation: Interpolation = "bicubic"
    fill: tuple[int, int, int] = (124, 116, 104)

    def __post_init__(self) -> None:
        if not 0.0 <= self.magnitude <= _STRONGEST:
            raise ValueError(
                f"magnitude must lie between 0 and 10. Received: {self.magnitude}"
            )
        if self.num_ops < 1:
            raise ValueError(f"num_ops must be at least 1. Received: {self.num_ops}")

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Change `images`, (H, W, C) uint8."""
        image = sample["images"]
        for number in range(self.num_ops):
            image = self._one(image, fold(seed, number))
        return {**sample, "images": image}

    def _one(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        chance, choice, side = uniform(seed, 3)
        noise = tf.random.stateless_normal([], fold(seed, 1), dtype=tf.float64)
        level = self.magnitude + self.magnitude_std * noise
        level = tf.clip_by_value(level, 0.0, _STRONGEST) / _STRONGEST
        sign = tf.where(side < 0.5, tf.constant(-1.0, tf.float64), 1.0)
        names = list(RAND_AUGMENT_OPS)
        number = tf.cast(choice * len(names), tf.int32)
        branches: list[Any] = [
            functools.partial(self.apply, name, image, level, sign) for name in names
        ]
        branches.append(functools.partial(tf.identity, image))
        number = tf.where(chance < self.probability, number, len(names))
        return tf.ensure_shape(tf.switch_case(number, branches), image.shape)

    def apply(
        self, name: str, image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor
    ) -> tf.Tensor:
        """Apply one operation.

        Args:
            name: key of `RAND_AUGMENT_OPS`.
            image: (H, W, C) uint8 tensor.
            level: strength from 0 to 1, float64 scalar.
            sign: -1 or 1, float64 scalar: to which side it goes, where it has two.

        Returns:
            Tensor like `image`.
        """
        if name in _MOVES:
            matrix = _MOVES[name](image, level, sign)
            return pixel_ops.transform(image, matrix, self.interpolation, self.fill)
        return RAND_AUGMENT_OPS[name](image, level, sign)


def _enhance(change: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Op:
    """Make the factor 1 grow or shrink by up to 0.9."""

    def apply(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
        return change(image, tf.maximum(1.0 + sign * level * 0.9, 0.1))

    return apply


def _posterize(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    bits = 4 - tf.cast(level * 4.0, tf.int32)
    return pixel_ops.posterize(image, tf.maximum(bits, 1))


def _solarize(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return pixel_ops.solarize(image, 256 - tf.cast(level * 256.0, tf.int32))


def _solarize_add(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return pixel_ops.solarize_add(image, tf.cast(level * 110.0, tf.int32))


def _matrix(rows: list[list[tf.Tensor | float]]) -> tf.Tensor:
    return tf.stack([tf.stack([tf.cast(v, tf.float64) for v in row]) for row in rows])


def _rotate(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return pixel_ops.rotation(sign * level * 30.0, image)


def _shear_x(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return _matrix([[1, sign * level * 0.3, 0], [0, 1, 0]])


def _shear_y(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return _matrix([[1, 0, 0], [sign * level * 0.3, 1, 0]])


def _translate_x(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    shift = sign * level * 0.45 * tf.cast(tf.shape(image)[1], tf.float64)
    return _matrix([[1, 0, shift], [0, 1, 0]])


def _translate_y(image: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    shift = sign * level * 0.45 * tf.cast(tf.shape(image)[0], tf.float64)
    return _matrix([[1, 0, 0], [0, 1, shift]])


# Those that return a map, for `pixel_ops.transform`.
_MOVES: dict[str, Op] = {
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}

# (image, level from 0 to 1, sign) -> image, or a map.
RAND_AUGMENT_OPS: dict[str, Op] = {
    "auto_contrast": lambda image, level, sign: pixel_ops.auto_contrast(image),
    "equalize": lambda image, level, sign: pixel_ops.equalize(image),
    "invert": lambda image, level, sign: pixel_ops.invert(image),
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _enhance(pixel_ops.color),
    "contrast": _enhance(pixel_ops.contrast),
    "brightness": _enhance(pixel_ops.brightness),
    "sharpness": _enhance(pixel_ops.sharpness),
    **_MOVES,
}
