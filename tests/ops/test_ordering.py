"""Order of gradients: which runs first, and that nothing else changes."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision.ops.ordering import differentiate_last, wait_for


def noting(name: str, seen: list[str], seconds: float) -> object:
    """Return an identity whose gradient takes its time and notes that it ran."""

    def note(upstream: tf.Tensor) -> tf.Tensor:
        time.sleep(seconds)
        seen.append(name)
        return upstream

    @tf.custom_gradient
    def identity(x: tf.Tensor) -> tuple[tf.Tensor, object]:
        return tf.identity(x), lambda up: tf.ensure_shape(
            tf.py_function(note, [up], up.dtype), up.shape
        )

    return identity


@pytest.mark.parametrize("ordered", [True, False])
def test_late_gradients_wait(ordered: bool) -> None:
    """The slow branch comes first although the other one could be done long before."""
    seen: list[str] = []
    fast, slow = noting("fast", seen, 0.0), noting("slow", seen, 1.0)

    @tf.function
    def gradients(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            late, early = fast(x * 1.0), y * 1.0
            if ordered:
                (late,), (early,) = differentiate_last([fast(x * 1.0)], [y * 1.0])
            loss = tf.reduce_sum(late * 3.0) + tf.reduce_sum(slow(early) ** 2)
        return tape.gradient(loss, [x, y])

    gradient_x, gradient_y = gradients(tf.ones(4), tf.fill([2], 5.0))
    np.testing.assert_array_equal(gradient_x, np.full(4, 3.0))
    np.testing.assert_array_equal(gradient_y, np.full(2, 10.0))
    assert seen == (["slow", "fast"] if ordered else ["fast", "slow"])


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_values_and_gradients_stay(jit_compile: bool | None) -> None:
    def gradients(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            (a, b), (c,) = differentiate_last([x, x * y], [y])
            loss = tf.reduce_sum(keras.ops.exp(a) * b * c)
        return [loss, *tape.gradient(loss, [x, y])]

    if jit_compile is not None:
        gradients = tf.function(gradients, jit_compile=jit_compile)
    x, y = np.float32([0.5, -0.75]), np.float32([2.0, 3.0])
    loss, by_x, by_y = gradients(tf.constant(x), tf.constant(y))
    np.testing.assert_allclose(loss, np.sum(np.exp(x) * x * y * y), atol=1e-5)
    np.testing.assert_allclose(by_x, np.exp(x) * (1 + x) * y * y, rtol=1e-5)
    np.testing.assert_allclose(by_y, 2 * np.exp(x) * x * y, rtol=1e-5)


def test_a_tensor_waits() -> None:
    """What the forward pass alone could give is made once the gradient arrives."""
    seen: list[str] = []

    @tf.function
    def late(x: tf.Tensor) -> tf.Tensor:
        slow = noting("slow", seen, 0.5)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = slow(x)
        event = tape.gradient(y, x)
        waiting = noting("waiting", seen, 0.0)
        with tf.GradientTape() as tape:
            tape.watch(x)
            z = waiting(x)
        return tape.gradient(z, x, wait_for(tf.ones_like(x), [event]))

    np.testing.assert_array_equal(late(tf.ones(3)), np.ones(3))
    assert seen == ["slow", "waiting"]
