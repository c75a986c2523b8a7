"""Kernels of elementwise arithmetic compute what the arithmetic does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kvision import layers
from kvision.ops.fusing import _rounded, _widened, fused
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


def test_conversions_are_those_of_tensorflow() -> None:
    """Every bfloat16; of float32 ties, both neighbours, overflow, infinities, NaN."""
    every = tf.bitcast(tf.range(2**16, dtype=tf.int32), tf.uint16)[:, 0]
    halves = tf.bitcast(every, tf.bfloat16)
    widened = _widened(halves)
    expected = tf.bitcast(tf.cast(halves, tf.float32), tf.uint32)
    is_number = ~tf.math.is_nan(tf.cast(halves, tf.float32))
    np.testing.assert_array_equal(
        tf.bitcast(widened, tf.uint32)[is_number], expected[is_number]
    )

    high = np.arange(2**16, dtype=np.uint32)[:, None] << 16
    low = np.uint32([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    values = tf.bitcast(tf.constant((high | low).ravel()), tf.float32)
    found = _rounded(values, tf.bfloat16)
    expected = tf.cast(values, tf.bfloat16)
    # A NaN whose upper half is infinity's may become infinity: none that comes of
    # arithmetic is one.
    is_number = tf.math.is_finite(values) | tf.math.is_inf(values)
    np.testing.assert_array_equal(
        tf.bitcast(found, tf.uint16)[is_number],
        tf.bitcast(expected, tf.uint16)[is_number],
    )
    quiet = tf.math.is_nan(values) & (tf.bitcast(values, tf.uint32) & 0x400000 > 0)
    assert tf.reduce_any(quiet)
    assert tf.reduce_all(tf.math.is_nan(found[quiet]))


def test_bfloat16_is_rounded_once() -> None:
    """Arithmetic in bfloat16 rounds three times: a fifth of the values differ."""
    rng = np.random.default_rng(2)
    # Further down 1 + erf(x) says more about a library's erf than about rounding.
    x = tf.cast(rng.uniform(-1, 4, 10_000), tf.bfloat16)
    found = tf.function(fused(gelu))(x)
    expected = tf.cast(gelu(tf.cast(x, tf.float32)), tf.bfloat16)
    assert found.dtype == tf.bfloat16
    assert np.mean(found.numpy() == expected.numpy()) > 0.999
    assert np.mean(gelu(x).numpy() == expected.numpy()) < 0.9
