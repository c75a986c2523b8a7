"""What a model costs: its parameters, and multiply-adds for one image."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import keras
import numpy as np

from kvision.ops.tracing import require_tensorflow

__all__ = ["Costs", "costs_of"]


class Costs(NamedTuple):
    """What a model costs.

    Attributes:
        parameters: number of trained weights (statistics of batches are none).
        multiply_adds: of matrix products and convolutions, for one image; other
            operations do not count.
    """

    parameters: int
    multiply_adds: int


def costs_of(build: Callable[[], keras.Model]) -> Costs:
    """Count without taking any memory for weights, however large the model.

    Args:
        build: function that builds the model, such as
            `lambda: kvision.models.vit("g/14")`.

    Returns:
        The costs.

    Raises:
        ValueError: if Keras does not run on TensorFlow, or if what the model computes
            depends on the image, as a detector's heads do.
    """
    require_tensorflow("Counting multiply-adds")
    # Keras lists the variables that wait for a value by thread, and the next scope to
    # end in that thread would fill them: so this thread ends with its scope.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_without_weights, build).result()


def _without_weights(build: Callable[[], keras.Model]) -> Costs:
    # Weights are made when a scope of this kind ends, unless it is told not to.
    with keras.StatelessScope(initialize_variables=False):
        model = build()
        weights = {id(weight): weight for weight in model.trainable_weights}
        sizes = [int(np.prod(weight.shape)) for weight in weights.values()]
        return Costs(sum(sizes), _multiply_adds(model))


def _multiply_adds(model: keras.Model) -> int:
    import tensorflow as tf

    inputs = keras.tree.map_structure(
        lambda tensor: tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype),
        model.input,
    )
    run = tf.function(lambda inputs: model(inputs, training=False))
    return _count(run.get_concrete_function(inputs).graph)


def _count(graph: Any) -> int:
    functions = [
        graph._get_function(name).graph
        for operation in graph.get_operations()
        if operation.type in ("PartitionedCall", "StatefulPartitionedCall")
        for name in [operation.get_attr("f").name]
    ]
    own = sum(map(_of_operation, graph.get_operations()))
    return own + sum(map(_count, functions))


def _of_operation(operation: Any) -> int:
    """Return how many products are summed for each output, times the outputs."""
    if operation.type == "MatMul":
        shape = operation.inputs[0].shape
        summed = shape[0] if operation.get_attr("transpose_a") else shape[1]
    elif operation.type == "BatchMatMulV2":
        shape = operation.inputs[0].shape
        summed = shape[-2] if operation.get_attr("adj_x") else shape[-1]
    elif operation.type == "Conv2D":
        height, width, channels, _ = operation.inputs[1].shape
        summed = height * width * channels
    elif operation.type == "DepthwiseConv2dNative":
        height, width, *_ = operation.inputs[1].shape
        summed = height * width
    elif operation.type == "Einsum":
        raise NotImplementedError(f"multiply-adds of {operation.name}")
    else:
        return 0
    number = operation.outputs[0].shape.num_elements()
    if number is None:
        raise ValueError(
            f"How often {operation.name} multiplies depends on the image. Only "
            "classifiers' multiply-adds are counted"
        )
    return int(summed) * int(number)
