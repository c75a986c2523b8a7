"""Batch normalisation in pyramid and heads, torchvision's v2, while it trains."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kvision.models.rcnn_conventions import TORCHVISION_V2
from tests.models.tiny import blocks, tiny_mask_rcnn
from tests.ops.modes import to_numpy


def moving_means(model: keras.Model) -> dict[str, np.ndarray]:
    layers = [model.get_layer(name) for name in ("pyramid", "box_head", "mask_head")]
    return {
        weight.path: to_numpy(weight)
        for layer in layers
        for weight in layer.non_trainable_weights
        if weight.name == "moving_mean"
    }


@pytest.mark.parametrize("recompute_backbone", [False, True])
def test_training_moves_every_statistic(
    recompute_backbone: bool, tmp_path: Path
) -> None:
    model = tiny_mask_rcnn(recompute_backbone=recompute_backbone, **TORCHVISION_V2)
    before = moving_means(model)
    assert len(before) == 4 + 4 + 4 + 1
    images, targets = blocks()
    model.compile(keras.optimizers.SGD(0.001))
    model.evaluate(images, targets, verbose=0)
    for path, values in moving_means(model).items():
        np.testing.assert_array_equal(values, before[path], path)
    model.fit(images, targets, epochs=1, batch_size=4, verbose=0)
    for path, values in moving_means(model).items():
        assert np.isfinite(values).all()
        assert np.abs(values - before[path]).max() > 0, path
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for path, values in moving_means(again).items():
        np.testing.assert_array_equal(values, moving_means(model)[path], path)
