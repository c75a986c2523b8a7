"""The order in which a backward pass does what could be done in any."""

from typing import Any

import keras

__all__ = ["differentiate_last"]

Tensor = Any


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
            with tf.control_dependencies(upstream[len(late) :]):
                waiting = [tf.identity(one) for one in upstream[: len(late)]]
            return [*waiting, *upstream[len(late) :]]

        return [tf.identity(tensor) for tensor in tensors], gradient

    tensors = ordered(*late, *early)
    return [tensors[: len(late)], tensors[len(late) :]]
