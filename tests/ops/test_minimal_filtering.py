"""Convolutions in fewer multiplications are the convolutions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision.ops.minimal_filtering import convolve
from kvision.ops.tracing import inference_tracing


def layer(**changes: object) -> keras.layers.Conv2D:
    keras.utils.set_random_seed(0)
    arguments = {"padding": "same", "bias_initializer": "he_normal", **changes}
    return keras.layers.Conv2D(128, arguments.pop("kernel_size", 3), **arguments)


def traced(conv: keras.layers.Conv2D, shape: tuple[int | None, ...]) -> object:
    run = tf.function(lambda x: convolve(conv, x), autograph=False)
    with inference_tracing(is_saved=False):
        return run.get_concrete_function(tf.TensorSpec(shape))


def has_strips(function: object) -> bool:
    return any(op.type == "BatchMatMulV2" for op in function.graph.get_operations())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [(72, 70), (75, 67), (50, 101)])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_values(size: tuple[int, int], activation: str | None, batch: int) -> None:
    """Even and odd sides, strips that do not come out even, any batch."""
    conv = layer(activation=activation, use_bias=activation is not None)
    features = np.random.default_rng(0).normal(size=(batch, *size, 128))
    features = tf.constant(features, tf.float32)
    expected = conv(features)
    function = traced(conv, (None, *size, 128))
    assert has_strips(function)
    found = function(features)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (None, 32, 32, 128)),
        ({}, (None, 80, 80, 64)),
        ({}, (None, None, 80, 128)),
        ({"kernel_size": 1}, (None, 80, 80, 128)),
        ({"strides": 2}, (None, 80, 80, 128)),
        ({"dilation_rate": 2}, (None, 80, 80, 128)),
        ({"padding": "valid"}, (None, 80, 80, 128)),
        ({"groups": 2}, (None, 80, 80, 256)),
        ({"dtype": "mixed_bfloat16"}, (None, 80, 80, 128)),
    ],
)
def test_other_convolutions_stay(
    changes: dict[str, object], shape: tuple[int | None, ...]
) -> None:
    conv = layer(**changes)
    conv.build(shape)
    assert not has_strips(traced(conv, shape))


def test_a_graph_that_is_saved_has_no_part_for_xla() -> None:
    conv = layer()
    conv.build((None, 80, 80, 128))
    run = tf.function(lambda x: convolve(conv, x), autograph=False)
    with inference_tracing():
        function = run.get_concrete_function(tf.TensorSpec((None, 80, 80, 128)))
    assert not has_strips(function)
