"""Optimizers: weight decay, clipping, averages, accumulation, by hand."""

import keras
import numpy as np
import pytest

from kvision.train.averaging import averaged_weights
from kvision.train.optimizers import make_optimizer


def variables() -> list[keras.Variable]:
    return [
        keras.Variable(np.ones((2, 1), "float32"), name="kernel"),
        keras.Variable(np.ones(2, "float32"), name="bias"),
    ]


def gradients(kernel: float, bias: float) -> list[object]:
    return [
        keras.ops.full((2, 1), kernel, "float32"),
        keras.ops.full((2,), bias, "float32"),
    ]


def values(weights: list[keras.Variable]) -> list[float]:
    return [float(np.ravel(weight.numpy())[0]) for weight in weights]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_spares_biases_and_norms(name: str) -> None:
    weights = variables()
    optimizer = make_optimizer(name, 0.5, weights, weight_decay=0.2)
    optimizer.apply(gradients(0.0, 0.0))
    # 1 - 0.5 * 0.2
    np.testing.assert_allclose(values(weights), [0.9, 1.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_no_weight_decay_by_default(name: str) -> None:
    weights = variables()
    make_optimizer(name, 0.5, weights).apply(gradients(0.0, 0.0))
    assert values(weights) == [1.0, 1.0]


def test_momentum_by_hand() -> None:
    weights = variables()
    optimizer = make_optimizer("sgd", 0.1, weights, momentum=0.5)
    optimizer.apply(gradients(1.0, 2.0))
    optimizer.apply(gradients(1.0, 2.0))
    # Steps of 0.1 and 0.05 + 0.1 times the gradient.
    np.testing.assert_allclose(values(weights), [0.75, 0.5], rtol=1e-6)


def test_clipnorm_is_that_of_all_gradients_together() -> None:
    weights = variables()
    optimizer = make_optimizer("sgd", 1.0, weights, momentum=0.0, clipnorm=1.0)
    # The norm of (3, 3, 4, 4) is sqrt(50).
    optimizer.apply(gradients(3.0, 4.0))
    norm = np.sqrt(50.0)
    np.testing.assert_allclose(values(weights), [1 - 3 / norm, 1 - 4 / norm], rtol=1e-6)


def test_accumulated_gradients_are_averaged() -> None:
    weights = variables()
    optimizer = make_optimizer("sgd", 0.1, weights, momentum=0.0, accumulate=2)
    optimizer.apply(gradients(1.0, 0.0))
    assert values(weights) == [1.0, 1.0]
    optimizer.apply(gradients(3.0, 1.0))
    np.testing.assert_allclose(values(weights), [0.8, 0.95], rtol=1e-6)


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r'"sgd" or "adamw"\. Received: .sdg.'):
        make_optimizer("sdg", 0.1, variables())


class OneWeight(keras.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.w = self.add_weight(shape=(1, 1), initializer="ones")

    def call(self, x: object) -> object:
        return x @ self.w


def averaging_model() -> keras.Model:
    model = keras.Sequential([OneWeight()])
    model.build((1, 1))
    optimizer = make_optimizer(
        "sgd", 1.0, model.trainable_variables, momentum=0.0, ema=0.9
    )
    model.compile(optimizer)
    return model


def weight(model: keras.Model) -> float:
    return float(model.get_weights()[0][0, 0])


def test_averages_are_in_the_model_inside_the_block_only() -> None:
    model = averaging_model()
    step = [keras.ops.full((1, 1), 0.5)]
    with averaged_weights(model):
        assert weight(model) == 1.0  # no step yet: there is no average
    model.optimizer.apply(step)  # weight 0.5, average begins there
    model.optimizer.apply(step)  # weight 0.0, average 0.9 * 0.5 + 0.1 * 0
    with averaged_weights(model):
        assert weight(model) == pytest.approx(0.45)
    assert weight(model) == 0.0
    with averaged_weights(model):
        assert weight(model) == pytest.approx(0.45)


def test_averages_leave_the_model_when_the_block_fails() -> None:
    model = averaging_model()
    for _ in range(2):
        model.optimizer.apply([keras.ops.full((1, 1), 0.5)])
    with pytest.raises(RuntimeError), averaged_weights(model):
        raise RuntimeError
    assert weight(model) == 0.0


def test_without_averages_the_block_changes_nothing() -> None:
    model = keras.Sequential([OneWeight()])
    model.build((1, 1))
    model.compile(make_optimizer("adamw", 0.1, model.trainable_variables))
    model.optimizer.apply([keras.ops.ones((1, 1))])
    before = weight(model)
    with averaged_weights(model):
        assert weight(model) == before
