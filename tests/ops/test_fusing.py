"""Kernels of elementwise arithmetic compute what the arithmetic does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kvision import layers
from kvision.ops.fusing import fused
from kvision.ops.rows import gelu


def gated(x: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    return ops.sigmoid(x) * ops.cast(scale, x.dtype)


def compiled_calls(function: tf.types.experimental.ConcreteFunction) -> list[str]:
    """Name the calls in a graph that XLA compiles by themselves."""
    return [
        operation.name
        for operation in function.graph.get_operations()
        if operation.type in ("PartitionedCall", "StatefulPartitionedCall")
        and operation.node_def.attr["_XlaMustCompile"].b
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients_are_those_of_the_function(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = tf.cast(rng.normal(size=(5, 7)), dtype)
    scale = tf.constant(rng.normal(size=7), tf.float32)
    up = tf.cast(rng.normal(size=(5, 7)), dtype)

    def run(function):
        with tf.GradientTape() as tape:
            tape.watch((x, scale))
            output = function(x, scale)
        return output, *tape.gradient(output, (x, scale), up)

    expected = run(gated)
    found = tf.function(lambda: run(fused(gated)))()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        one, other = (tf.cast(v, tf.float32).numpy() for v in (one, other))
        np.testing.assert_allclose(
            one, other, atol=1e-6 if dtype == "float32" else 0.03
        )


def test_one_kernel_in_graphs_alone() -> None:
    x, scale = tf.ones((2, 3)), tf.ones(3)
    run = fused(gated)
    plain = tf.function(lambda: (run(x, scale), run(x + 1, scale)))
    assert len(compiled_calls(plain.get_concrete_function())) == 2
    whole = tf.function(lambda: run(x, scale), jit_compile=True)
    assert not compiled_calls(whole.get_concrete_function())
    np.testing.assert_allclose(run(x, scale), gated(x, scale))


def test_training_alone_is_compiled_in_parts() -> None:
    layer = layers.MLP(8)
    layer.build((None, 4))
    specs = tf.TensorSpec((None, 4))
    for training, number in ((False, 0), (True, 1)):
        function = tf.function(lambda x, t=training: layer(x, training=t))
        concrete = function.get_concrete_function(specs)
        nodes = concrete.graph.as_graph_def()
        bodies = [f.node_def for f in nodes.library.function] + [nodes.node]
        calls = sum(n.attr["_XlaMustCompile"].b for body in bodies for n in body)
        assert min(calls, 1) == number


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_layer_normalization_in_training(dtype: str) -> None:
    """Keras' layer, values and gradients, in a graph; a large mean does no harm."""
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(30.0, 2.0, (2, 5, 16)), tf.float32)
    ours = layers.LayerNormalization(dtype=dtype)
    theirs = keras.layers.LayerNormalization(epsilon=1e-6, dtype=dtype)
    for layer in (ours, theirs):
        layer.build(x.shape)
    weights = [rng.normal(1.0, 0.2, 16), rng.normal(0, 0.2, 16)]

    @tf.function
    def run(layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(
                tf.square(tf.cast(layer(x, training=True), tf.float32))
            )
        return loss, *tape.gradient(loss, (x, layer.gamma.value, layer.beta.value))

    found = []
    for layer in (ours, theirs):
        layer.set_weights(weights)
        found.append(run(layer))
    tolerance = 2e-4 if dtype == "float32" else 0.05
    for one, other in zip(*found, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, atol=tolerance * scale)


def test_gelu_of_large_numbers() -> None:
    x = tf.constant([-40.0, -6.0, 0.0, 6.0, 40.0])

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = fused(gelu)(x)
        return y, tape.gradient(y, x)

    value, slope = run()
    np.testing.assert_allclose(value, [0, 0, 0, 6, 40], atol=1e-5)
    np.testing.assert_allclose(slope, [0, 0, 0.5, 1, 1], atol=1e-5)
