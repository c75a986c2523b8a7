"""Detectors that compute as torchvision v2, detectron2 or matterport, in all forms."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision.export import Parity, saved_model, tflite
from kvision.models.rcnn_conventions import DETECTRON2, MATTERPORT, TORCHVISION_V2
from tests.export.detector import small_detector
from tests.export.graph import operators
from tests.ops.modes import to_numpy

# Of ResNets, and of images like photos.
_OF_THE_BACKBONE = {
    "batch_norm_epsilon",
    "normalization",
    "pool_padding",
    "stride_in_1x1",
}
CONVENTIONS = {
    "torchvision_v2": {**TORCHVISION_V2, "freeze_batch_norm": False},
    "detectron2": dict(DETECTRON2),
    # Weights of chance are less sure of what they see, and the image is small.
    "matterport": {
        **MATTERPORT,
        "rpn_channels": 16,
        "rpn_pre_nms_top_k": 200,
        "score_threshold": 0.3,
        "rpn_nms_iou_threshold": 0.8,
        "nms_iou_threshold": 0.5,
    },
}


@pytest.fixture(scope="module", params=CONVENTIONS)
def model(request: pytest.FixtureRequest) -> keras.Model:
    arguments = CONVENTIONS[request.param]
    heads = {k: v for k, v in arguments.items() if k not in _OF_THE_BACKBONE}
    model = small_detector(**heads)
    bias = model.get_layer("box_head").classes.bias
    bias.assign([0.0] * 3 + [-4.0])  # the background is not the best class everywhere
    rng = np.random.default_rng(4)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):  # those of the heads
            mean, variance = layer.moving_mean, layer.moving_variance
            mean.assign(rng.normal(0, 0.1, mean.shape))
            variance.assign(rng.uniform(0.5, 1.5, variance.shape))
    return model


def assert_close(parity: Parity) -> None:
    assert parity.is_conclusive
    for each in parity.differences:
        assert each.num_detections >= 50
        assert each.num_unmatched == 0
        assert each.boxes.largest < 1e-3
        assert each.scores.largest < 1e-4
        assert each.masks.largest < 1e-3


def test_xla_equals_eager_mode(model: keras.Model, images: np.ndarray) -> None:
    eager = to_numpy(model(images[:4], training=False))
    assert eager["num_detections"].sum() >= 50
    compiled = tf.function(model, jit_compile=True)
    found = to_numpy(compiled(tf.constant(images[:4]), training=False))
    for name, value in eager.items():
        np.testing.assert_allclose(found[name], value, atol=1e-3, err_msg=name)


def test_tflite(model: keras.Model, images: np.ndarray, tmp_path: Path) -> None:
    parity = tflite(model, tmp_path / "model.tflite", images=images[:4])
    assert_close(parity)
    found = operators(parity.path.read_bytes())
    assert not [each for each in found if each.kind == "CUSTOM"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["torchvision_v2"], indirect=True)
def test_saved_model(model: keras.Model, images: np.ndarray, tmp_path: Path) -> None:
    parity = saved_model(model, tmp_path / "1", images=images[:4])
    assert {"serving_default", "serving_xla"} <= {e.form for e in parity.differences}
    assert_close(parity)
