"""Gradient checkpointing: computed twice, with the same numbers."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision.models import Detector
from tests.models.tiny import IMAGE_SIZE, blocks, tiny_mask_rcnn

NUM_CONVOLUTIONS = 10  # of the backbone below


def backbone_with_everything() -> keras.Model:
    """Shortcuts, batch statistics and random numbers: C2 to C5."""
    images = x = keras.Input((*IMAGE_SIZE, 3), name="images")
    features = {}
    for level in range(1, 6):
        x = keras.layers.Conv2D(8 * level, 3, 2, padding="same")(x)
        x = keras.layers.BatchNormalization()(x)
        branch = keras.layers.Conv2D(8 * level, 3, padding="same")(x)
        branch = keras.layers.Dropout(0.5)(branch)
        x = keras.layers.ReLU()(keras.layers.Add()([x, branch]))
        features[f"C{level}"] = x
    features.pop("C1")
    return keras.Model(images, features)


def detector(recompute_backbone: bool, **arguments: Any) -> Detector:
    keras.utils.set_random_seed(0)
    backbone = backbone_with_everything()
    return tiny_mask_rcnn(
        backbone=backbone,
        normalization=(127.5, 64.0),
        recompute_backbone=recompute_backbone,
        **arguments,
    )


@pytest.mark.parametrize("frozen_stages", [0, 3])
@pytest.mark.parametrize("run_eagerly", [True, False])
def test_two_steps_are_the_same(run_eagerly: bool, frozen_stages: int) -> None:
    """Losses, gradients (SGD moves by them), averages and random states."""
    images, targets = blocks()

    def trained(recompute_backbone: bool) -> tuple[list[float], list[np.ndarray]]:
        model = detector(recompute_backbone, frozen_stages=frozen_stages)
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=run_eagerly)
        losses = [model.train_on_batch(images, targets)[0] for _ in range(2)]
        return losses, [variable.numpy() for variable in model.variables]

    losses, variables = trained(True)
    expected_losses, expected = trained(False)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    for got, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-3, atol=1e-5)


def number_of_convolutions(model: Detector) -> int:
    """Count those of the graph of losses and gradients, gradients not included."""
    images, targets = blocks(2)
    weights = model.trainable_weights

    @tf.function
    def gradients() -> list[Any]:
        with tf.GradientTape() as tape:
            losses = model._compute_losses(images, targets, tf.constant(1), True)
            total = sum(losses.values())
        return [g for g in tape.gradient(total, weights) if g is not None]

    operations = gradients.get_concrete_function().graph.get_operations()
    return sum(operation.type == "Conv2D" for operation in operations)


def test_backward_graph_computes_the_backbone_again() -> None:
    again = number_of_convolutions(detector(True))
    assert again - number_of_convolutions(detector(False)) == NUM_CONVOLUTIONS


def test_backbone_is_cut_into_several_segments() -> None:
    """All in one would need all activations at once after all."""
    features = detector(True)._compute_losses.features
    sizes = [
        sum(isinstance(x, keras.layers.Conv2D) for x in segment.layers)
        for segment, _ in features.segments
    ]
    assert len(sizes) >= 4
    assert sum(sizes) == NUM_CONVOLUTIONS


def test_loaded_model_computes_again_too(tmp_path: Any) -> None:
    detector(True).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config()["recompute_backbone"]
    assert number_of_convolutions(loaded) == number_of_convolutions(detector(True))
