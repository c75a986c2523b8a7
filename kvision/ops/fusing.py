"""Elementwise arithmetic of training as one kernel each, made by XLA."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from kvision.ops.tracing import static_shapes_required

__all__ = ["fused", "plain_graph_on_processor"]

Tensor = Any
Function = Callable[..., Tensor]


def fused(function: Function) -> Function:
    """Make one kernel of a function and one of its gradient, in graphs on a processor.

    TensorFlow runs arithmetic op by op, each of which reads and writes memory: an
    activation and its gradient take four times as long as in one pass. Whole graphs
    compiled by XLA are slower, for its matrix products are. For the gradient only the
    inputs are kept. What is in bfloat16 is read and written as such and computed in
    float32.

    Args:
        function: of float tensors to one tensor of the dtype of the first, without
            state; made at the top of a module, so that all its uses share what is
            compiled.

    Returns:
        Function of the same arguments. Where nothing is gained, eagerly, inside a graph
        that XLA compiles as a whole and on an accelerator, it is `function`; on other
        backends than TensorFlow it is `function` under `keras.remat`.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.remat(function)

    def run(*inputs: Tensor) -> Tensor:
        return (_kernels(function) if plain_graph_on_processor() else function)(*inputs)

    return run


def plain_graph_on_processor() -> bool:
    """Tell whether what is traced now is a graph that TensorFlow runs op by op.

    Returns:
        False eagerly, for XLA and TFLite, with a GPU and on other backends.
    """
    if static_shapes_required():
        return False
    import tensorflow as tf

    return not (tf.executing_eagerly() or tf.config.list_logical_devices("GPU"))


@functools.cache
def _kernels(function: Function) -> Function:
    import tensorflow as tf

    @tf.function(jit_compile=True, autograph=False)
    def forward(*inputs: Tensor) -> Tensor:
        return _rounded(function(*map(_widened, inputs)), inputs[0].dtype)

    @tf.function(jit_compile=True, autograph=False)
    def backward(inputs: tuple[Tensor, ...], upstream: Tensor) -> list[Tensor]:
        wide = [_widened(value) for value in inputs]
        with tf.GradientTape() as tape:
            tape.watch(wide)
            output = function(*wide)
        gradients = tape.gradient(output, wide, _widened(upstream))
        return [
            _rounded(gradient, value.dtype)
            for gradient, value in zip(gradients, inputs, strict=True)
        ]

    @tf.custom_gradient
    def run(*inputs: Tensor) -> tuple[Tensor, Function]:
        return forward(*inputs), lambda upstream: backward(inputs, upstream)

    return run


# XLA's own conversions make a kernel of an activation take twice as long, arithmetic in
# bfloat16 three times: not all of it becomes vector instructions.
def _widened(values: Tensor) -> Tensor:
    import tensorflow as tf

    if values.dtype != tf.bfloat16:
        return values
    bits = tf.cast(tf.bitcast(values, tf.uint16), tf.uint32)
    return tf.bitcast(
        tf.bitwise.left_shift(bits, tf.constant(16, tf.uint32)), tf.float32
    )


def _rounded(values: Tensor, dtype: Any) -> Tensor:
    """Round float32 to the nearest bfloat16, to the even one of two; NaN stays."""
    import tensorflow as tf

    if dtype != tf.bfloat16:
        return values
    bits, places = tf.bitcast(values, tf.uint32), tf.constant(16, tf.uint32)
    is_odd = tf.bitwise.bitwise_and(
        tf.bitwise.right_shift(bits, places), tf.constant(1, tf.uint32)
    )
    bits = tf.where(
        tf.math.is_nan(values), bits, bits + tf.constant(0x7FFF, tf.uint32) + is_odd
    )
    halves = tf.cast(tf.bitwise.right_shift(bits, places), tf.uint16)
    return tf.bitcast(halves, tf.bfloat16)
