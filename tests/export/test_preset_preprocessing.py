"""The preprocessing of a preset in predict, SavedModel and TFLite is the publisher's.

`tests/parity/record_preprocessing.py` made the values: photos of three sizes, prepared
by the transforms of timm and torchvision, and the logits of a small transformer.
"""

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvision
import kvision_edge
from kvision.data.preparation import prepare_image
from kvision.export import saved_model, tflite
from kvision.export.classifier import Classifier
from kvision.layers import PatchEmbedding
from kvision.models.presets import PRESETS
from kvision.models.vit import ViTSize, build_vit
from tests.ops.modes import to_numpy
from tests.parity.compare import assert_equal
from tests.parity.files import write_file
from tests.parity.seeded import image_for
from tests.parity.timm_seeded import weights_for

Arrays = dict[str, np.ndarray]

ODD = {
    "normalization": ((79.05, 119.85, 158.1), (28.05, 58.65, 94.35)),
    "resize": "crop",
    "crop_fraction": 0.875,
    "interpolation": "bilinear",
}
RULES: dict[str, dict[str, Any]] = {
    "odd": ODD,
    **{
        name: PRESETS[name].preprocessing
        for name in (
            "vit_ti16_augreg_imagenet1k",
            "vit_ti16_augreg_imagenet1k_384",
            "deit_ti16_imagenet1k",
            "deit3_s16_imagenet22k_1k",
        )
    },
}
EXPORTED = ("odd", "deit_ti16_imagenet1k")
# Of the largest logit: the graph of a SavedModel resamples within one grey level of
# Pillow, the others to the bit.
RESAMPLED = 2e-3


@pytest.fixture(scope="module")
def recorded() -> Arrays:
    path = Path(__file__).parents[1] / "parity" / "golden" / "preprocessing.npz"
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def photos(recorded: Arrays) -> list[np.ndarray]:
    return [image_for(i, tuple(size)) for i, size in enumerate(recorded["sizes"])]


@pytest.fixture(scope="module")
def weights(recorded: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    return write_file(path, recorded["state_dict"], weights_for)


def build(case: str, weights: Path) -> keras.Model:
    """The small transformer with the preprocessing of a preset."""
    stem = PatchEmbedding(96, 16, name="patch_embedding")
    size = ViTSize(96, 1, 3, 384)
    model = build_vit(size, stem, image_size=(64, 64), num_classes=10, **RULES[case])
    kvision.weights.load(model, weights, "timm")
    return model


@pytest.fixture(scope="module", params=EXPORTED)
def exported(
    request: pytest.FixtureRequest,
    weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path, Path]:
    """Name of a case, its SavedModel and its TFLite file."""
    model = build(request.param, weights)
    folder = tmp_path_factory.mktemp("exported")
    saved = saved_model(model, folder / "saved" / "1").path
    return request.param, saved, tflite(model, folder / "model.tflite").path


@pytest.mark.parametrize("case", RULES)
def test_classify_equals_the_publisher(
    case: str, recorded: Arrays, photos: list[np.ndarray], weights: Path
) -> None:
    model = build(case, weights)
    found = kvision.classify(model, photos)
    logits = np.stack([one.logits for one in found])
    assert_equal(logits, recorded[f"{case}/logits"], "logits")


@pytest.mark.parametrize("case", RULES)
def test_prepared_photos_equal_the_publishers(
    case: str, recorded: Arrays, photos: list[np.ndarray], weights: Path
) -> None:
    """What enters the transformer, value by value."""
    model = build(case, weights)
    rule = Classifier(model)
    pixels = [
        prepare_image(
            photo, (64, 64), rule.resize, rule.crop_fraction, rule.interpolation
        )
        for photo in photos
    ]
    found = to_numpy(model.get_layer("preprocessing")(np.stack(pixels).astype("f4")))
    np.testing.assert_allclose(
        found[:, ::5, ::5], recorded[f"{case}/inputs"], atol=1e-5
    )


def test_savedmodel_equals_the_publisher(
    exported: tuple[str, Path, Path], recorded: Arrays, photos: list[np.ndarray]
) -> None:
    case, path, _ = exported
    run = tf.saved_model.load(str(path)).signatures["encoded_images"]
    files = []
    for photo in photos:
        file = io.BytesIO()
        Image.fromarray(photo).save(file, "PNG")
        files.append(file.getvalue())
    found = run(encoded_images=tf.constant(files))["logits"].numpy()
    assert_equal(found, recorded[f"{case}/logits"], "logits", RESAMPLED)


def test_tflite_equals_the_publisher(
    exported: tuple[str, Path, Path], recorded: Arrays, photos: list[np.ndarray]
) -> None:
    """On a device there are scores: their logarithms are logits less a constant."""
    case, _, path = exported
    classifier = kvision_edge.Classifier(path)
    scores = np.stack([classifier.classify(photo).all_scores for photo in photos])
    logits = recorded[f"{case}/logits"]
    logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert_equal(np.log(scores), logits, "logarithms of scores")


def test_recorded_values_tell_rules_apart(
    recorded: Arrays, photos: list[np.ndarray], weights: Path
) -> None:
    """Otherwise the comparisons would not notice a wrong rule."""
    case = "deit_ti16_imagenet1k"
    for change in (
        {"crop_fraction": 0.875},
        {"interpolation": "bilinear"},
        {"resize": "stretch"},
        {"normalization": ((123.675, 116.28, 103.53), (58.395, 57.12, 60.0))},
    ):
        model = build(case, weights)
        config = model.get_config()
        (layer,) = (one for one in config["layers"] if one["name"] == "preprocessing")
        if "normalization" in change:
            layer["config"]["std"] = change["normalization"][1]
        else:
            layer["config"] |= change
        other = keras.Model.from_config(config)
        other.set_weights(model.get_weights())
        logits = np.stack([one.logits for one in kvision.classify(other, photos)])
        theirs = recorded[f"{case}/logits"]
        measured = np.abs(logits - theirs).max() / np.abs(theirs).max()
        print(f"{change}: {measured:.1e}")
        assert measured > 2 * RESAMPLED
