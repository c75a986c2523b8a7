"""Elementwise arithmetic of training as one kernel each, made by XLA."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from kvision.ops.tracing import static_shapes_required

__all__ = ["fused"]

Tensor = Any
Function = Callable[..., Tensor]


def fused(function: Function) -> Function:
    """Make one kernel of a function and one of its gradient, in graphs on a processor.

    TensorFlow runs arithmetic op by op, each of which reads and writes memory: an
    activation and its gradient take four times as long as in one pass. Whole graphs
    compiled by XLA are slower, for its matrix products are. For the gradient only the
    inputs are kept.

    Args:
        function: of float tensors to one tensor, without state; made at the top of a
            module, so that all its uses share what is compiled.

    Returns:
        Function of the same arguments. Where nothing is gained, eagerly, inside a graph
        that XLA compiles as a whole and on an accelerator, it is `function`; on other
        backends than TensorFlow it is `function` under `keras.remat`.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.remat(function)

    def run(*inputs: Tensor) -> Tensor:
        return (_kernels(function) if _are_faster() else function)(*inputs)

    return run


def _are_faster() -> bool:
    if static_shapes_required():
        return False
    import tensorflow as tf

    return not (tf.executing_eagerly() or tf.config.list_logical_devices("GPU"))


@functools.cache
def _kernels(function: Function) -> Function:
    import tensorflow as tf

    forward = tf.function(function, jit_compile=True, autograph=False)

    @tf.function(jit_compile=True, autograph=False)
    def backward(inputs: tuple[Tensor, ...], upstream: Tensor) -> list[Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = function(*inputs)
        return tape.gradient(output, inputs, upstream)

    @tf.custom_gradient
    def run(*inputs: Tensor) -> tuple[Tensor, Function]:
        return forward(*inputs), lambda upstream: backward(inputs, upstream)

    return run
