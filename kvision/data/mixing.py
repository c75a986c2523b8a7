"""MixUp and CutMix: batches of which each image is a mixture of two.

The other image of sample i of B is number B - 1 - i. One weight serves a whole batch,
as in timm's mode "batch". Images come as uint8 and leave as float32 in 0..255; labels
are (B, K) float32 rows that sum to one, of which the same mixture is made.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import tensorflow as tf

from kvision.data.draws import fold, uniform, whole
from kvision.data.pixel_ops import box_mask

__all__ = ["CutMix", "Mix", "MixUp", "MixUpOrCutMix", "soft_labels"]

Batch = tuple[tf.Tensor, tf.Tensor]


def soft_labels(
    labels: tf.Tensor, num_classes: int, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Make rows of probabilities of labels.

    Args:
        labels: (B,) int32 tensor, 0..K-1.
        num_classes: K.
        label_smoothing: part of the probability that all classes share alike.

    Returns:
        (B, K) float32 tensor. Szegedy et al. 2015, Rethinking the Inception
        Architecture, section 7.
    """
    low = label_smoothing / num_classes
    return tf.one_hot(labels, num_classes, 1.0 - label_smoothing + low, low)


class Mix(ABC):
    """A mixture of pairs of images of a batch."""

    @abstractmethod
    def __call__(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> Batch:
        """Mix a batch.

        Args:
            images: (B, H, W, C) uint8 or float32 tensor in 0..255.
            labels: (B, K) float32 tensor.
            seed: (2,) int32 tensor.

        Returns:
            Images, float32, and labels of the same shapes.
        """


@dataclass(frozen=True)
class MixUp(Mix):
    """Add two images, weighted by lambda and 1 - lambda.

    Args:
        alpha: lambda is drawn from Beta(alpha, alpha).
        probability: with which a batch is mixed.

    Zhang et al. 2017, mixup: Beyond Empirical Risk Minimization.
    """

    alpha: float = 0.8
    probability: float = 1.0

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> Batch:
        """Mix a batch; see `Mix`."""
        part = _share(self.alpha, self.probability, seed)
        images = tf.cast(images, tf.float32)
        return _weighted(images, part), _weighted(labels, part)


@dataclass(frozen=True)
class CutMix(Mix):
    """Put a rectangle of one image into another.

    Args:
        alpha: lambda, the part that is kept, is drawn from Beta(alpha, alpha). Where
            the image's edge cuts the rectangle, labels get the part that really is
            kept.
        probability: with which a batch is mixed.

    Yun et al. 2019, CutMix.
    """

    alpha: float = 1.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> Batch:
        """Mix a batch; see `Mix`."""
        images = tf.cast(images, tf.float32)
        size = tf.shape(images)[1:3]
        first, last = cut_box(
            size, _share(self.alpha, self.probability, seed), fold(seed, 2)
        )
        cut = tf.reduce_prod(tf.cast(last - first, tf.float64))
        kept = 1.0 - cut / tf.cast(tf.reduce_prod(size), tf.float64)
        mixed = tf.where(box_mask(size, first, last), tf.reverse(images, [0]), images)
        return mixed, _weighted(labels, kept)


@dataclass(frozen=True)
class MixUpOrCutMix(Mix):
    """Mix each batch one way or the other.

    Args:
        mixup: one way.
        cutmix: the other.
        switch_probability: of the other.
    """

    mixup: MixUp = field(default_factory=MixUp)
    cutmix: CutMix = field(default_factory=CutMix)
    switch_probability: float = 0.5

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> Batch:
        """Mix a batch; see `Mix`."""
        (chance,) = uniform(fold(seed, 3), 1)
        mixed, soft = tf.cond(
            chance < self.switch_probability,
            lambda: self.cutmix(images, labels, seed),
            lambda: self.mixup(images, labels, seed),
        )
        return tf.ensure_shape(mixed, images.shape), tf.ensure_shape(soft, labels.shape)


def cut_box(
    size: tf.Tensor, kept: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw a box of the area 1 - `kept` about a random centre, cut at the edges.

    Args:
        size: (2,) int32 tensor: height and width in pixels.
        kept: part of the area that stays, float64 scalar.
        seed: (2,) int32 tensor.

    Returns:
        (2,) int32 corners (y, x), the second exclusive.
    """
    side = tf.cast(tf.sqrt(1.0 - kept) * tf.cast(size, tf.float64), tf.int32)
    centre = whole(seed, size - 1)
    first = tf.maximum(centre - side // 2, 0)
    return first, tf.minimum(centre + (side + 1) // 2, size)


def _check(mix: MixUp | CutMix) -> None:
    if mix.alpha <= 0.0:
        raise ValueError(f"alpha must be above 0. Received: {mix}")
    if not 0.0 <= mix.probability <= 1.0:
        raise ValueError(f"probability must lie between 0 and 1. Received: {mix}")


def _share(alpha: float, probability: float, seed: tf.Tensor) -> tf.Tensor:
    """Draw lambda of Beta(alpha, alpha); 1 where a batch is not mixed. float64."""
    gammas = tf.random.stateless_gamma([2], fold(seed, 0), alpha, dtype=tf.float64)
    part = gammas[0] / tf.reduce_sum(gammas)
    (chance,) = uniform(fold(seed, 1), 1)
    return tf.where(chance < probability, part, 1.0)


def _weighted(values: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    part = tf.cast(part, values.dtype)
    return part * values + (1.0 - part) * tf.reverse(values, [0])
