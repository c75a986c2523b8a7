"""What works on each token alone, done in two dimensions."""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kvision.ops.fusing import fused, plain_graph_on_processor
from kvision.ops.tracing import tracing_for_inference

__all__ = [
    "by_rows",
    "dense_by_rows",
    "gelu",
    "normalize_rows",
    "normalize_rows_in_training",
    "product_in_training",
]

Tensor = Any

_MOST_CHANNELS = 4096  # with 12,544 a convolution takes longer than a product


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


def dense_by_rows(
    dense: keras.layers.Dense, tokens: Tensor, training: bool | None = None
) -> Tensor:
    """Apply a dense layer to tokens.

    A product in half precision TensorFlow takes on a processor as a convolution of one
    pixel, for which its oneDNN (3.7) has faster kernels, twice as fast with a bias. In
    training the gradient is written out in products, that of the bias too: TensorFlow's
    own (BiasAddGrad) adds up in bfloat16, 6304 times 0.1 to 32, and takes longer.

    Args:
        dense: layer that is built.
        tokens: (B, ..., D) tensor.
        training: whether a gradient will be taken.

    Returns:
        (B, ..., E) tensor.
    """
    if dense.quantization_mode is not None:
        return by_rows(dense, tokens)
    if training and plain_graph_on_processor():
        product = product_in_training
    elif tracing_for_inference() and _is_half(dense.compute_dtype):
        product = _product
    else:
        return by_rows(dense, tokens)
    dtype = dense.compute_dtype
    parameters = [dense.kernel, dense.bias] if dense.use_bias else [dense.kernel]
    parameters = [ops.cast(parameter, dtype) for parameter in parameters]
    products = by_rows(lambda rows: product(rows, *parameters), ops.cast(tokens, dtype))
    return dense.activation(products)


def _is_half(dtype: Any) -> bool:
    return keras.backend.standardize_dtype(dtype) == "bfloat16"


def _product(rows: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute rows (M, D) times kernel (D, E), plus bias (E,)."""
    if not _is_half(rows.dtype) or kernel.shape[0] > _MOST_CHANNELS:
        products = ops.matmul(rows, kernel)
        return products if bias is None else ops.add(products, bias)
    number, width = ops.shape(rows)
    pixels = ops.reshape(rows, (1, number, 1, width))
    pixels = ops.conv(pixels, kernel[None, None])
    if bias is not None:
        pixels = ops.add(pixels, bias)
    return ops.reshape(pixels, (number, kernel.shape[-1]))


@ops.custom_gradient
def product_in_training(rows: Tensor, *parameters: Tensor) -> Any:
    """Compute a product whose gradient is products, in a plain graph on a processor.

    Args:
        rows: (M, D) tensor.
        *parameters: kernel (D, E) and perhaps bias (E,), of the same dtype.

    Returns:
        (M, E) tensor.
    """
    kernel, has_bias = parameters[0], len(parameters) == 2

    def gradient(upstream: Tensor) -> list[Tensor]:
        of_rows = ops.matmul(upstream, ops.transpose(kernel))
        of_kernel = ops.matmul(ops.transpose(rows), upstream)
        if not has_bias:
            return [of_rows, of_kernel]
        ones = ops.ones((1, ops.shape(rows)[0]), upstream.dtype)
        return [of_rows, of_kernel, ops.matmul(ones, upstream)[0]]

    return _product(rows, *parameters), gradient


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
