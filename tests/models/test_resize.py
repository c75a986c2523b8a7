"""`with_image_size` for classifiers; that of detectors is tested with them."""

import keras
import numpy as np
import pytest

from kvision import layers, models
from kvision.ops.resampling import resize_grid
from tests.models.test_vit import CASES, build, images


@pytest.mark.parametrize("name", CASES)
def test_weights_are_carried_over(name: str) -> None:
    model = build(name)
    larger = models.with_image_size(model, (64, 80))
    assert larger(images(1, (64, 80))).shape == (1, 5)
    for layer in model.layers:
        if hasattr(layer, "carry_over"):
            continue
        for a, b in zip(
            layer.get_weights(),
            larger.get_layer(layer.name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rule", ["bilinear", "bicubic_antialias", "bicubic"])
def test_positions_are_resampled_by_their_rule(rule: str) -> None:
    model = build("distilled", position_interpolation=rule)
    other = models.with_image_size(model, (80, 64))
    old = model.get_layer("position_embedding").get_weights()[0][0]
    new = other.get_layer("position_embedding").get_weights()[0][0]
    np.testing.assert_array_equal(new[:2], old[:2])  # class and distillation token
    expected = resize_grid(old[2:].reshape(2, 3, -1), (5, 4), rule)
    np.testing.assert_allclose(new[2:], expected.reshape(20, -1), atol=1e-6)


def test_table_of_another_grid_equals_a_carried_over_one() -> None:
    """Resampled in the graph, or once and for all: the same numbers."""
    model = build("vit")
    within = build("vit", image_size=(64, 64), position_grid=(2, 3))
    within.set_weights(model.get_weights())
    once = models.with_image_size(model, (64, 64))
    batch = images(2, (64, 64))
    np.testing.assert_allclose(within(batch), once(batch), atol=1e-5)


def test_same_size_is_a_copy() -> None:
    model = build("relative")
    copy = models.with_image_size(model, (32, 48))
    assert copy is not model
    batch = images()
    expected = model(batch)
    np.testing.assert_allclose(copy(batch), expected, atol=1e-5)
    copy.set_weights([weight * 0 for weight in copy.get_weights()])
    np.testing.assert_array_equal(model(batch), expected)


def test_relative_positions_keep_their_distances() -> None:
    """A table that is linear in the offset stays so on a larger grid."""
    layer, larger = (
        layers.RelativePositionBias(1, interpolation="bilinear") for _ in range(2)
    )
    layer(np.zeros((1, 3, 3, 8)))
    larger(np.zeros((1, 6, 6, 8)))
    rows, _ = np.mgrid[-2:3, -2:3]
    layer.table.assign(rows.reshape(-1, 1))
    larger.carry_over(layer)
    table = larger.table.numpy().reshape(11, 11)
    inner = table[2:-2, 5]
    np.testing.assert_allclose(np.diff(inner), 5 / 11, atol=1e-6)


def test_frozen_layers_stay_frozen() -> None:
    model = build("vit")
    model.get_layer("block_0").trainable = False
    other = models.with_image_size(model, (64, 64))
    assert not other.get_layer("block_0").trainable
    assert other.get_layer("block_1").trainable


def test_weights_that_depend_on_the_size_are_refused() -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="depend on the size of the images"):
        models.with_image_size(model, (16, 16))
