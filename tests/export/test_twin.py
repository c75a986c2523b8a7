"""The float32 twin of a model."""

import keras
import numpy as np
import pytest

from kvision.export.twin import in_float32
from tests.export.detector import small_detector, textured_images, tiny_backbone


def policies(model: keras.Model) -> set[str]:
    return {layer.dtype_policy.name for layer in model._flatten_layers()}


def test_a_float32_model_is_its_own_twin(detector: keras.Model) -> None:
    assert in_float32(detector) is detector


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_twin_computes_in_float32_with_the_same_weights(policy: str) -> None:
    model = small_detector(backbone=tiny_backbone(dtype=policy), dtype=policy)
    assert policy in policies(model)
    twin = in_float32(model)
    assert policies(twin) == {"float32"}
    assert policy in policies(model)  # left as it was
    assert twin.class_names == model.class_names
    plain = small_detector()
    plain.set_weights(model.get_weights())
    images = textured_images(1)
    expected, found = plain(images), twin(images)
    for name in ("boxes", "scores", "masks"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert np.abs(np.asarray(model(images)["boxes"] - expected["boxes"])).max() > 1e-3


def test_a_backbone_of_half_precision_alone() -> None:
    model = small_detector(masks=False, backbone=tiny_backbone(dtype="mixed_bfloat16"))
    assert policies(in_float32(model)) == {"float32"}
