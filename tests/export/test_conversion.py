"""Conversion to TFLite: its errors say which layer to mend."""

import os
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision.export.conversion import convert_function, quiet
from kvision.export.interpreter import runner
from kvision.ops.tracing import tracing_for_tflite
from tests.export.graph import operators

ENTRY = tf.TensorSpec((1, 4, 4, 3), tf.uint8, name="images")


class Inverse(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return keras.ops.erfinv(inputs)


class Enlarged(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        boxes = tf.constant([[0.0, 0.0, 1.0, 1.0]])
        return tf.image.crop_and_resize(inputs, boxes, [0], (8, 8))


class Branched(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs * (2.0 if tracing_for_tflite() else 3.0)


def converted(*layers: keras.layers.Layer) -> bytes:
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 1, name="first"), *layers],
        name="net",
    )
    return convert_function(
        lambda images: {"out": model(tf.cast(images, tf.float32))}, ENTRY
    )


def test_ops_without_a_form_are_named_with_their_layers() -> None:
    with pytest.raises(ValueError, match="no TFLite form") as error:
        converted(Enlarged(name="enlarged"), Inverse(name="inverse"))
    message = str(error.value)
    assert "CropAndResize in net_1/enlarged_1" in message
    assert "Erfinv in net_1/inverse_1" in message
    assert "first" not in message
    assert message.count("\n") == 0


def test_layers_know_that_they_are_traced_for_tflite() -> None:
    layer = Branched(name="branched")
    content = converted(layer)
    assert not tracing_for_tflite()
    assert [each.kind for each in operators(content)].count("CONV_2D") == 1
    ones = keras.Sequential([keras.Input((4, 4, 3)), layer])
    factor = convert_function(
        lambda images: {"out": ones(tf.cast(images, tf.float32))}, ENTRY
    )
    found = runner(factor)(np.ones((2, 4, 4, 3), np.uint8))["out"]
    np.testing.assert_array_equal(found, np.full((2, 4, 4, 3), 2, np.float32))


def test_quiet_holds_back_what_c_code_prints(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with quiet():
            os.write(2, b"a whole graph")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"
