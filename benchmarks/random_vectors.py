"""Weights that begin as zeros and ones, made random: in files they would fold away."""

import keras

__all__ = ["randomize_vectors"]


def randomize_vectors(model: keras.Model, deviation: float) -> None:
    """Add noise to biases, scales and means, not to variances.

    Kernels are random already. A copy of all weights made here would count as memory of
    the model.

    Args:
        model: the model; it is changed.
        deviation: standard deviation of the noise.
    """
    for weight in model.weights:
        if len(weight.shape) == 1 and "variance" not in weight.path:
            weight.assign_add(keras.random.normal(weight.shape, stddev=deviation))
