"""The harness itself: layers with one fault each must not pass it."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.layers.harness import BATCH, check_layer

INPUTS = (np.random.default_rng(0).normal(size=(BATCH, 4)).astype(np.float32),)


@keras.saving.register_keras_serializable("kvision")
class Sound(keras.layers.Layer):
    """Two chained linear maps; each subclass breaks one thing."""

    def __init__(self, units: int = 3, gain: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.gain = gain

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))
        self.bias = self.add_weight(shape=(self.units,))

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.kernel) * self.gain + self.bias

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "gain": self.gain}


def check(layer_class: type, folder: Path, **changes: Any) -> None:
    arguments = {"units": 5, "gain": 2.0} | changes
    check_layer(layer_class, arguments, INPUTS, folder=folder, gradients_to=(0,))


def test_a_sound_layer_passes(tmp_path: Path) -> None:
    check(Sound, tmp_path)


def test_default_argument(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="gain is its default"):
        check(Sound, tmp_path, gain=1.0)


class WrongConfig(Sound):
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gain": 3.0}


class ForgetfulConfig(Sound):
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gain": 2.0, "trainable": True}


class LazyGradient(Sound):
    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.kernel) + ops.stop_gradient(self.bias) + self.gain


class SparseGradient(Sound):
    def call(self, x: Any) -> Any:
        rows = ops.take(self.kernel, [0, 0, 1], axis=0)
        return rows * self.gain + self.bias + ops.sum(x, axis=-1, keepdims=True)


class WrongShape(Sound):
    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.units + 1)


class WrongDtype(Sound):
    def call(self, x: Any) -> Any:
        return ops.cast(super().call(x), "float32")

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor((x.shape[0], self.units), x.dtype)


class OtherInGraph(Sound):
    def call(self, x: Any) -> Any:
        return super().call(x) + (0.0 if tf.executing_eagerly() else 1.0)


class NoKernelForXLA(Sound):
    def call(self, x: Any) -> Any:
        image = tf.reshape(ops.cast(x[0], "float32"), (1, 2, 2, 1))
        nothing = tf.image.crop_and_resize(image, tf.zeros((1, 4)), [0], [1, 1])
        return super().call(x) + ops.cast(ops.sum(nothing), x.dtype)


class Overflow(Sound):
    def call(self, x: Any) -> Any:
        return super().call(x) * 3e4 * 3e4


FAULTS: dict[type, tuple[type[Exception], str]] = {
    WrongConfig: (AssertionError, "get_config"),
    ForgetfulConfig: (AssertionError, "trainable"),
    LazyGradient: (AssertionError, "no gradient reaches"),
    SparseGradient: (AssertionError, "a sparse gradient"),
    WrongShape: (AssertionError, "promised shape"),
    WrongDtype: (AssertionError, "promised dtype"),
    OtherInGraph: (AssertionError, "graph against eager"),
    NoKernelForXLA: (tf.errors.InvalidArgumentError, "XLA"),
    Overflow: (AssertionError, "not finite: mixed_float16"),
}


@pytest.mark.parametrize("layer_class", FAULTS, ids=lambda layer: layer.__name__)
def test_fault_is_found(layer_class: type, tmp_path: Path) -> None:
    keras.saving.register_keras_serializable("kvision")(layer_class)
    exception, message = FAULTS[layer_class]
    with pytest.raises(exception, match=message):
        check(layer_class, tmp_path)


def test_unregistered_layer(tmp_path: Path) -> None:
    class Unregistered(Sound):
        pass

    with pytest.raises(AssertionError, match="not registered"):
        check(Unregistered, tmp_path)
