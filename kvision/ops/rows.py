"""What works on each token alone, done in two dimensions."""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kvision.ops.fusing import fused
from kvision.ops.tracing import tracing_for_inference

__all__ = [
    "by_rows",
    "dense_by_rows",
    "gelu",
    "normalize_rows",
    "normalize_rows_in_training",
]

Tensor = Any


def by_rows(function: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """Apply a function of rows to tokens.

    TensorFlow on a CPU makes one kernel of a product, its bias and its activation where
    they have two dimensions: a third less time for a ViT-B/16 in bfloat16.

    Args:
        function: of (M, D) to (M, E) tensors, such as a dense layer.
        tokens: (B, ..., D) tensor.

    Returns:
        (B, ..., E) tensor.
    """
    shape = ops.shape(tokens)
    rows = function(ops.reshape(tokens, (-1, shape[-1])))
    return ops.reshape(rows, (-1, *shape[1:-1], rows.shape[-1]))


def dense_by_rows(dense: keras.layers.Dense, tokens: Tensor) -> Tensor:
    """Apply a dense layer without activation to tokens.

    Predictions in half precision on a CPU take it as a convolution of one pixel, for
    which TensorFlow's oneDNN (3.7) has a kernel a sixth faster than for products.

    Args:
        dense: layer that is built.
        tokens: (B, ..., D) tensor.

    Returns:
        (B, ..., E) tensor.
    """
    is_half = keras.backend.standardize_dtype(dense.compute_dtype) == "bfloat16"
    if not (is_half and tracing_for_inference()):
        return by_rows(dense, tokens)

    def convolve(rows: Tensor) -> Tensor:
        number, width = ops.shape(rows)
        kernel = ops.cast(dense.kernel, rows.dtype)[None, None]
        pixels = ops.conv(ops.reshape(rows, (1, number, 1, width)), kernel)
        if dense.use_bias:
            pixels = ops.add(pixels, ops.cast(dense.bias, rows.dtype))
        return ops.reshape(pixels, (number, dense.units))

    return by_rows(convolve, ops.cast(tokens, dense.compute_dtype))


def gelu(x: Tensor) -> Tensor:
    """Compute x times the share of a normal distribution below x, exactly.

    `keras.ops.gelu` computes the same from the complement of the error function, which
    TensorFlow neither fuses with the product before it nor has fast.

    Args:
        x: tensor.

    Returns:
        Tensor of the same shape.

    Source: Hendrycks and Gimpel 2016, Gaussian Error Linear Units, section 2.
    """
    half, root = (ops.cast(value, x.dtype) for value in (0.5, math.sqrt(0.5)))
    return (half * x) * (1 + ops.erf(root * x))


def normalize_rows(rows: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    """Normalise each row to mean 0 and variance 1, then scale and shift its columns.

    A batch normalisation in which every row is a channel: where the number of rows is
    not known, TensorFlow makes one kernel of it, a fifth of the time of the arithmetic
    written out. It computes in float32 whatever the rows are.

    Args:
        rows: (M, D) TensorFlow tensor.
        gamma: (D,) tensor.
        beta: (D,) tensor.
        epsilon: added to the variance.

    Returns:
        (M, D) tensor.

    Source: Ba et al. 2016, Layer Normalization, equation 4; the form that
    tensorflow/core/grappler/optimizers/remapper.cc (FindMklLayerNorm) recognises.
    """
    import tensorflow as tf

    number, width = tf.shape(rows)[0], rows.shape[-1]
    normalized, *_ = tf.compat.v1.nn.fused_batch_norm(
        tf.reshape(rows, tf.stack([1, number, width, 1])),
        tf.fill([number], 1.0),
        tf.fill([number], 0.0),
        epsilon=epsilon,
        data_format="NCHW",
        is_training=True,
    )
    normalized = tf.reshape(normalized, tf.shape(rows))
    return normalized * tf.cast(gamma, rows.dtype) + tf.cast(beta, rows.dtype)


def normalize_rows_in_training(
    rows: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> Tensor:
    """Compute the same with one kernel for the gradient.

    Args:
        rows: (M, D) tensor.
        gamma: (D,) tensor.
        beta: (D,) tensor.
        epsilon: added to the variance.

    Returns:
        (M, D) tensor.
    """
    return _normalize(epsilon)(rows, gamma, beta)


@functools.cache
def _normalize(epsilon: float) -> Callable[..., Tensor]:
    @fused
    def normalize(rows: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        values, width = ops.cast(rows, "float32"), rows.shape[-1]
        # XLA makes vector instructions of products, not of sums along rows.
        mean_of, to_row = ops.full((width, 1), 1.0 / width), ops.ones((1, width))
        values = values - ops.matmul(ops.matmul(values, mean_of), to_row)
        variance = ops.matmul(ops.square(values), mean_of)
        values = values * ops.matmul(ops.rsqrt(variance + epsilon), to_row)
        return ops.cast(values * gamma + beta, rows.dtype)

    return normalize
