"""Patches in training are a product, not a convolution."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision import layers


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_values_and_gradients_in_training(dtype: str, use_bias: bool) -> None:
    keras.utils.set_random_seed(0)
    layer = layers.PatchEmbedding(6, (4, 3), use_bias=use_bias, dtype=dtype)
    images = tf.random.normal((2, 10, 9, 3))  # two rows of the last patches are zeros
    layer.build(images.shape)
    up = tf.random.normal((2, 3, 3, 6))

    def run(training: bool) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            grid = layer(images, training=training)
            loss = tf.reduce_sum(tf.cast(grid, tf.float32) * up)
        weights = [weight.value for weight in layer.weights]
        return [grid, *tape.gradient(loss, [images, *weights])]

    step = tf.function(lambda: run(True))
    kinds = {op.type for op in step.get_concrete_function().graph.get_operations()}
    assert not {"Conv2DBackpropFilter", "BiasAddGrad"} & kinds
    for one, other in zip(step(), run(False), strict=True):
        assert one.dtype == other.dtype
        one, other = (tf.cast(value, tf.float32) for value in (one, other))
        scale = float(tf.reduce_max(tf.abs(other)))
        atol = scale * (1e-5 if dtype == "float32" else 0.02)
        np.testing.assert_allclose(one, other, atol=atol)
