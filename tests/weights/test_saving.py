"""`kvision.weights.save`, and what comes back of it."""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import pytest

import kvision as kv
from kvision import models
from kvision.weights import CheckpointError, read_checkpoint, save
from tests.weights.timm_file import small_dynamic_vit, small_vit

MODELS: dict[str, Callable[[], keras.Model]] = {
    "vit": lambda: small_vit(layer_scale=0.1, qk_norm=True, num_register_tokens=2),
    "relative": lambda: small_vit(positions="relative", pooling="attention"),
    "convolution": lambda: small_vit(positions="convolution"),
    "distilled": lambda: small_vit(distillation_token=True),
    "dynamic_vit": small_dynamic_vit,
    "conv_vit": lambda: models.conv_vit("Lite-2/8", num_classes=3, image_size=(32, 32)),
    "mixed_resolution_vit": lambda: models.mixed_resolution_vit(
        "Lite-2/8", num_classes=3, image_size=(32, 32)
    ),
    "hybrid_vit": lambda: models.hybrid_vit(
        "R+Ti/16", num_classes=3, image_size=(32, 32)
    ),
    "twins_svt": lambda: models.twins_svt("S", num_classes=3, image_size=(32, 32)),
    "mask_rcnn": lambda: models.mask_rcnn(
        backbone="mobilenet_v2",
        weights=None,
        class_names=["a"],
        image_size=(64, 64),
    ),
}


def disturb(model: keras.Model) -> None:
    """Give every weight values of its own, as training would."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))


@pytest.mark.parametrize("name", MODELS)
def test_comes_back(name: str, tmp_path: Path) -> None:
    model, other = MODELS[name](), MODELS[name]()
    disturb(model)
    save(model, tmp_path / "model.safetensors")
    report = kv.weights.load(other, tmp_path / "model.safetensors")
    assert report.source == "kvision"
    assert len(report.matched) == len(model.weights)
    for old, new in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_says_which_version_wrote_it(tmp_path: Path) -> None:
    save(small_vit(), tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.metadata == {"kvision": metadata.version("kvision")}
    assert "block_0/attention/qkv/kernel" in checkpoint


def test_another_size_and_other_classes(tmp_path: Path) -> None:
    model = small_vit(position_interpolation="bicubic")
    disturb(model)
    save(model, tmp_path / "model.safetensors")
    other = small_vit((48, 48), position_interpolation="bicubic", num_classes=2)
    report = kv.weights.load(other, tmp_path / "model.safetensors")
    assert report.resized == ("position_embedding/table",)
    assert report.fresh == ("head/kernel", "head/bias")
    expected = models.with_image_size(model, (48, 48))
    np.testing.assert_array_equal(
        other.get_layer("position_embedding").table,
        expected.get_layer("position_embedding").table,
    )


def test_of_another_model_is_an_error(tmp_path: Path) -> None:
    save(small_vit(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing .*: distillation_token"):
        kv.weights.load(MODELS["distilled"](), tmp_path / "model.safetensors")


def test_two_weights_of_one_name_are_refused(tmp_path: Path) -> None:
    class Twice(keras.layers.Layer):
        def build(self, shape: tuple[int, ...]) -> None:
            self.first = self.add_weight(shape=(1,), name="weight")
            self.second = self.add_weight(shape=(1,), name="weight")

        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return x * self.first + self.second

    inputs = keras.Input((1,))
    model = keras.Model(inputs, Twice(name="twice")(inputs))
    with pytest.raises(ValueError, match=r"called 'twice/weight'\. Give its layers"):
        save(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
