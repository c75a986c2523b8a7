"""A matrix product in TensorFlow: 2048 x 2048 x 2048."""

import sys
from collections.abc import Callable

import tensorflow as tf

from benchmarks.turns import take_turns


def prepare() -> Callable[[], object]:
    """Return a function that multiplies two matrices."""
    matrix = tf.cast(tf.random.normal((2048, 2048)), sys.argv[1])
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    return lambda: product().numpy()


take_turns(prepare)
