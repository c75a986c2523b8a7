"""Random numbers that follow from a seed: (2,) int32 tensors, drawn without state."""

import tensorflow as tf

__all__ = ["fold", "uniform", "whole"]


def fold(seed: tf.Tensor, number: int) -> tf.Tensor:
    """Make another seed of a seed and a number."""
    return tf.random.experimental.stateless_fold_in(seed, number)


def uniform(
    seed: tf.Tensor, number: int, low: float = 0.0, high: float = 1.0
) -> list[tf.Tensor]:
    """Draw float64 scalars, low <= value < high."""
    values = tf.random.stateless_uniform([number], seed, low, high, tf.float64)
    return tf.unstack(values)


def whole(seed: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """Draw whole numbers from 0 to `largest`, both included; its shape, int32."""
    draws = tf.random.stateless_uniform(tf.shape(largest), seed, 0.0, 1.0, tf.float64)
    count = tf.cast(largest, tf.float64) + 1.0
    return tf.minimum(tf.cast(tf.floor(draws * count), tf.int32), largest)
