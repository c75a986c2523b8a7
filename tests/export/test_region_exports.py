"""Exported classifiers that are told where to look: every form has a second input."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvision
import kvision_edge
from kvision.export import Parity, onnx, saved_model, tflite
from kvision.export.interpreter import runner
from kvision.export.samples import generated_regions
from tests.export.classifier import region_vit, shapes
from tests.export.detector import textured_images

BOXES = [(10, 12, 70, 60), (100, 40, 128, 96)]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return region_vit()


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    regions = generated_regions(4, 3, (64, 96))
    return {"images": textured_images(4, (64, 96)), "regions": regions}


@pytest.fixture(scope="module")
def lite(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Parity:
    path = tmp_path_factory.mktemp("lite") / "regional.tflite"
    return tflite(model, path, images=textured_images(4, (80, 90)))


def test_generated_regions_are_of_every_number() -> None:
    regions = generated_regions(50, 3, (64, 96))
    is_box = (regions[..., 2:] > regions[..., :2]).all(axis=-1)
    assert set(is_box.sum(axis=1)) == {1, 2, 3}
    assert not regions[~is_box].any()
    assert regions[..., 2].max() > 64
    assert (regions >= 0).all()
    assert (regions <= [96, 64, 96, 64]).all()


def test_tflite_looks_where_it_is_told(
    lite: Parity, model: keras.Model, inputs: dict[str, np.ndarray]
) -> None:
    assert lite.differences[0].relative < 1e-4
    run = runner(lite.path.read_bytes())
    found = run(**inputs)["logits"]
    expected = np.asarray(model(inputs))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    elsewhere = run(**{**inputs, "regions": np.zeros((4, 3, 4), np.float32)})["logits"]
    assert np.abs(found - elsewhere).max(axis=1).min() > 1e-3


def test_int8_learns_its_ranges_with_regions(
    model: keras.Model, tmp_path: Path
) -> None:
    photos = shapes(12, 64)[0]
    parity = tflite(model, tmp_path / "a.tflite", quantize="int8", calibration=photos)
    assert parity.differences[0].correlation > 0.99


def test_saved_model_has_two_inputs_and_takes_no_files(
    model: keras.Model, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    parity = saved_model(model, tmp_path / "1")
    assert [d.form for d in parity.differences] == ["serving_default", "serving_xla"]
    assert all(each.relative < 1e-4 for each in parity.differences)
    loaded = tf.saved_model.load(str(parity.path))
    found = loaded.signatures["serving_default"](
        **{name: tf.constant(values) for name, values in inputs.items()}
    )
    np.testing.assert_allclose(found["logits"], np.asarray(model(inputs)), atol=1e-4)
    description = json.loads((parity.path / "assets/kvision.json").read_text())
    assert description["num_regions"] == 3


def test_onnx_has_two_inputs(
    model: keras.Model, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    parity = onnx(model, tmp_path / "regional.onnx")
    session = runtime.InferenceSession(str(parity.path))
    assert [entry.name for entry in session.get_inputs()] == ["images", "regions"]
    (found,) = session.run(["logits"], inputs)
    np.testing.assert_allclose(found, np.asarray(model(inputs)), atol=1e-4)


@pytest.mark.parametrize("boxes", [[], BOXES])
def test_device_equals_classify(
    lite: Parity, model: keras.Model, boxes: list[tuple[int, ...]]
) -> None:
    (photo,) = textured_images(1, (96, 128))
    found = kvision_edge.Classifier(lite.path).classify(photo, regions=boxes)
    (expected,) = kvision.classify(model, photo, regions=[boxes])
    np.testing.assert_allclose(found.all_scores, expected.scores, atol=1e-5)


def test_device_refuses_what_does_not_fit(lite: Parity) -> None:
    (photo,) = textured_images(1, (96, 128))
    classifier = kvision_edge.Classifier(lite.path)
    with pytest.raises(ValueError, match=r"takes 3 regions\. Received: 4"):
        classifier.classify(photo, regions=[BOXES[0]] * 4)
    with pytest.raises(ValueError, match="within the photo of 128 x 96"):
        classifier.classify(photo, regions=[(0, 0, 128, 97)])
