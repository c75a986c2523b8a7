"""Image and batch normalisation."""

import keras
import numpy as np
import pytest

from kvision import layers
from tests.ops.modes import to_numpy


def test_image_normalization_by_hand() -> None:
    image = np.array([[[[0, 127, 255], [10, 20, 30]]]], np.uint8)
    layer = layers.ImageNormalization(mean=(100, 127, 55), std=(50, 10, 100))
    expected = [[[[-2, 0, 2], [-1.8, -10.7, -0.25]]]]
    np.testing.assert_allclose(to_numpy(layer(image)), expected, rtol=1e-6)


def test_reversed_channels_take_mean_and_std_in_bgr_order() -> None:
    image = np.array([[[[10, 20, 30]]]], np.float32)
    layer = layers.ImageNormalization((0, 5, 10), (10, 1, 2), reverse_channels=True)
    np.testing.assert_allclose(to_numpy(layer(image)), [[[[3, 15, 0]]]], rtol=1e-6)


@pytest.mark.parametrize(("mean", "std"), [(2.0, (1, 2, 4)), ((2, 2, 2), (1, 2, 4))])
def test_one_number_stands_for_all_channels(mean: object, std: object) -> None:
    image = np.full((1, 1, 1, 3), 10, np.float32)
    layer = layers.ImageNormalization(mean, std)
    np.testing.assert_allclose(to_numpy(layer(image)), [[[[8, 4, 2]]]], rtol=1e-6)


@pytest.mark.parametrize("std", [0, (1, 1, -2)])
def test_std_must_be_positive(std: object) -> None:
    with pytest.raises(ValueError, match="std must be positive"):
        layers.ImageNormalization(0, std)


@pytest.mark.parametrize(
    ("mean", "std", "name"), [((1, 2, 3), 1, "mean"), (0, (1, 2), "std")]
)
def test_number_of_channels(mean: object, std: object, name: str) -> None:
    layer = layers.ImageNormalization(mean, std)
    with pytest.raises(ValueError, match=f"{name} must have 1 value .* 4 channels"):
        layer(np.zeros((1, 2, 2, 4), np.float32))


def random_statistics() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    gamma, beta, mean = rng.normal(size=(3, 6)).astype(np.float32)
    return [gamma, beta, mean, rng.uniform(0.1, 2, 6).astype(np.float32)]


@pytest.mark.parametrize("training", [False, True])
def test_frozen_batch_norm_is_batch_norm_in_inference(training: bool) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype(np.float32)
    frozen = layers.FrozenBatchNormalization(epsilon=1e-2)
    usual = keras.layers.BatchNormalization(epsilon=1e-2)
    for layer in (frozen, usual):
        layer.build(x.shape)
        layer.set_weights(random_statistics())
    expected = to_numpy(usual(x, training=False))
    got = to_numpy(frozen(x, training=training))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_frozen_batch_norm_never_changes() -> None:
    frozen = layers.FrozenBatchNormalization()
    frozen.build((None, 6))
    frozen.set_weights(random_statistics())
    frozen.trainable = True  # as `model.trainable = True` would
    frozen(np.random.default_rng(0).normal(size=(8, 6)), training=True)
    for got, expected in zip(frozen.get_weights(), random_statistics(), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert frozen.trainable_variables == []
