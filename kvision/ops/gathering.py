"""Taking rows of each sample by number."""

from typing import Any

import keras
from keras import ops

__all__ = ["gather_rows"]

Tensor = Any


def gather_rows(rows: Tensor, indices: Tensor) -> Tensor:
    """Take some rows of each sample: tokens, boxes.

    Args:
        rows: (B, N, ...) tensor.
        indices: (B, K) int tensor in 0..N-1.

    Returns:
        (B, K, ...) tensor.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # `take_along_axis` would transpose all rows, which took longer than any other
        # step from anchors to proposals; this is GATHER in TFLite.
        return tf.gather(rows, indices, batch_dims=1)
    shape = (*indices.shape, *(1 for _ in rows.shape[2:]))
    return ops.take_along_axis(rows, ops.reshape(indices, shape), axis=1)
