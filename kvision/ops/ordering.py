"""The order in which TensorFlow does what could be done in any.

A tensor that is made early takes memory until it is used.
"""

from typing import Any

import keras

__all__ = ["differentiate_last", "wait_for"]

Tensor = Any


def wait_for(tensor: Tensor, others: list[Tensor]) -> Tensor:
    """Return a tensor that is not there before others are.

    A gradient's first steps that need the forward pass alone would else be done in the
    forward pass, and their results kept.

    Args:
        tensor: the tensor.
        others: those to wait for.

    Returns:
        The same values.
    """
    if keras.backend.backend() != "tensorflow":
        return tensor
    import tensorflow as tf

    with tf.control_dependencies(others):
        return tf.identity(tensor)


def differentiate_last(late: list[Tensor], early: list[Tensor]) -> list[list[Tensor]]:
    """Return tensors unchanged whose gradients are taken in a given order.

    TensorFlow runs the backward passes of two branches side by side and holds the
    tensors of both. In this order it needs the memory of the larger one only.

    Args:
        late: tensors whose gradients wait.
        early: tensors for whose gradients they wait. Whatever uses these must not
            depend on `late`.

    Returns:
        The same tensors, to be used instead of the given ones.
    """
    if keras.backend.backend() != "tensorflow":
        return [late, early]
    import tensorflow as tf

    @tf.custom_gradient
    def ordered(*tensors: Tensor) -> tuple[list[Tensor], Any]:
        def gradient(*upstream: Tensor) -> list[Tensor]:
            last, first = list(upstream[: len(late)]), list(upstream[len(late) :])
            return [*(wait_for(one, first) for one in last), *first]

        return [tf.identity(tensor) for tensor in tensors], gradient

    tensors = ordered(*late, *early)
    return [tensors[: len(late)], tensors[len(late) :]]
