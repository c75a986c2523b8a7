"""Gradient checkpointing: activations that are computed a second time, not kept."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from kvision.ops.fusing import plain_graph_on_processor
from kvision.ops.ordering import wait_for

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

    return (_kept_back if plain_graph_on_processor() else tf.recompute_grad)(run)


def _kept_back(function: Function) -> Function:
    """Do as `tf.recompute_grad`, which adds zeros to each input so that XLA waits too.

    In a graph without XLA that would be a pass over memory for nothing.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def run(*inputs: Any) -> tuple[Any, Function]:
        outputs = function(*inputs)

        def gradient(*upstream: Any, variables: Sequence[Any] = ()) -> Any:
            late = tf.nest.map_structure(lambda x: wait_for(x, [*upstream]), inputs)
            with tf.GradientTape() as tape:
                tape.watch((late, variables))
                again = function(*late)
            of_inputs, of_variables = tape.gradient(
                again, (late, [*variables]), output_gradients=upstream
            )
            return (of_inputs, of_variables) if variables else of_inputs

        return outputs, gradient

    return run
