"""Gradient checkpointing: activations that are computed a second time, not kept."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

__all__ = ["recomputed"]

Function = Callable[..., Any]


def recomputed(function: Function, state: Sequence[Any]) -> Function:
    """Make a function keep its inputs only and compute the rest again for gradients.

    The second time it sees the state of the first: the same random numbers, and no
    average moves twice. (`keras.RematScope` does neither, and in a graph of TensorFlow
    it refuses layers that are told whether they train.)

    Args:
        function: of tensors to tensors, in any nesting.
        state: Keras variables that it changes: seeds of random generators, averages.

    Returns:
        Function of the same arguments and results. On backends other than TensorFlow it
        is `function` under `keras.remat`.

    Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.remat(function)
    import tensorflow as tf

    before: list[list[Any]] = []

    def run(*inputs: Any) -> Any:
        if not before:  # the forward pass
            before.append([(v, tf.identity(v.value)) for v in state])
            return function(*inputs)
        with keras.StatelessScope(before[0]):
            return function(*inputs)

    return tf.recompute_grad(run)
