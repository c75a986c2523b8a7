"""Exported classifiers of every form against their model, and what is refused."""

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvision
import kvision_edge
from kvision import layers
from kvision.export import Parity, ParityError, onnx, saved_model, tflite
from kvision.export.flatbuffer import check_rank
from kvision.export.interpreter import runner
from kvision.export.twin import in_float32
from tests.export.classifier import CLASS_NAMES, shapes, small_vit, train
from tests.export.graph import operators

KINDS = ["float32", "float16", "dynamic", "int8"]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A classifier that has learned its three classes a little."""
    return train(small_vit())


@pytest.fixture(scope="module")
def data() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(shapes(200, seed=9)).batch(50)


@pytest.fixture(scope="module")
def lite(
    model: keras.Model, data: tf.data.Dataset, tmp_path_factory: Any
) -> dict[str, Parity]:
    folder = tmp_path_factory.mktemp("lite")
    calibration = shapes(100, seed=5)[0]
    return {
        kind: tflite(
            model,
            folder / f"{kind}.tflite",
            quantize=kind,
            calibration=calibration,
            data=data,
        )
        for kind in KINDS
    }


@pytest.fixture(scope="module")
def saved(model: keras.Model, tmp_path_factory: Any) -> Parity:
    return saved_model(model, tmp_path_factory.mktemp("saved") / "shapes/1")


@pytest.mark.parametrize("kind", KINDS)
def test_files_keep_the_top_class(lite: dict[str, Parity], kind: str) -> None:
    (found,) = lite[kind].differences
    assert (found.form, found.num_images) == (kind, 200)
    assert found.is_conclusive
    assert found.num_kept >= 196
    assert found.correlation >= 0.99
    assert found.is_judged == (kind != "float32")
    assert found.accuracy[0] > 0.6
    assert found.accuracy[0] - found.accuracy[1] <= 0.01
    if kind == "float32":
        assert found.relative < 1e-5


def test_fewer_bits_are_fewer_bytes(lite: dict[str, Parity]) -> None:
    sizes = [lite[kind].num_bytes for kind in KINDS]
    assert sizes[1] < 0.65 * sizes[0]
    assert sizes[2] < 0.45 * sizes[0]
    assert sizes[3] < 0.55 * sizes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_builtin_ops_of_four_dimensions(lite: dict[str, Parity], kind: str) -> None:
    content = lite[kind].path.read_bytes()
    assert not [each for each in operators(content) if each.kind == "CUSTOM"]
    check_rank(content, 4)
    with pytest.raises(ValueError, match=r"more than 2 dimensions.*in small"):
        check_rank(content, 2)


def test_products_are_8_bit_and_the_rest_is_not(lite: dict[str, Parity]) -> None:
    found = operators(lite["int8"].path.read_bytes())
    products = [e for e in found if e.kind in ("FULLY_CONNECTED", "CONV_2D")]
    eight = [each for each in products if each.output == "INT8"]
    # Embedding, and in each of 2 blocks qkv, projection and the MLP's two; not logits.
    assert (len(products), len(eight)) == (10, 9)
    assert all(each.inputs[:2] == ("INT8", "INT8") for each in eight)
    kinds = {each.kind for each in found if each.output == "INT8"}
    assert kinds == {"FULLY_CONNECTED", "CONV_2D", "QUANTIZE"}


def test_every_signature_was_compared(saved: Parity) -> None:
    names = [each.form for each in saved.differences]
    assert names == ["serving_default", "serving_xla", "encoded_images"]
    assert all(each.relative < 1e-4 for each in saved.differences)
    assert all(each.num_kept == 8 for each in saved.differences)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_files_are_classified_as_photos_are(
    saved: Parity, model: keras.Model, tmp_path: Path, kind: str
) -> None:
    photo = Image.fromarray(shapes(1, 50, seed=3)[0][0]).resize((90, 60))
    settings = Image.Exif()
    settings[0x0112] = 6
    path = tmp_path / f"photo.{kind}"
    if kind == "jpg":
        photo.save(path, quality=95, exif=settings)
    else:
        photo.save(path)
    run = tf.saved_model.load(str(saved.path)).signatures["encoded_images"]
    found = run(encoded_images=tf.constant([path.read_bytes()]))
    (expected,) = kvision.classify(model, path)
    assert set(found) == {"logits", "scores"}
    np.testing.assert_allclose(found["scores"][0], expected.scores, atol=0.02)
    assert expected.image_size == ((90, 60) if kind == "jpg" else (60, 90))


def test_exports_say_what_they_are(saved: Parity, lite: dict[str, Parity]) -> None:
    written = (saved.path / "assets/kvision.json").read_text()
    with zipfile.ZipFile(lite["int8"].path) as archive:
        texts = [written, archive.read("kvision.json").decode()]
    for text in texts:
        description = json.loads(text)
        assert description["task"] == "classification"
        assert description["class_names"] == CLASS_NAMES
        assert description["resize"] == "crop"
        assert description["crop_fraction"] == 0.9
        assert description["interpolation"] == "bicubic"


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_device_equals_the_runtime_and_classify(
    lite: dict[str, Parity], model: keras.Model, tmp_path: Path, kind: str
) -> None:
    photo = np.asarray(Image.fromarray(shapes(1, seed=4)[0][0]).resize((75, 51)))
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    classifier = kvision_edge.Classifier(lite[kind].path)
    found = classifier.classify(path, top=2)
    (expected,) = kvision.classify(model, path, top=2)
    atol = 1e-5 if kind == "float32" else 0.05
    np.testing.assert_allclose(found.all_scores, expected.scores, atol=atol)
    assert found.image_size == (51, 75)
    assert len(found.names) == 2
    assert found.names == [CLASS_NAMES[label] for label in found.labels]
    if kind == "float32":
        assert found.names == expected.names
    same = classifier.classify(photo, top=9)
    assert len(same.names) == 3
    np.testing.assert_array_equal(same.all_scores, found.all_scores)


def test_command_of_the_device_tells_the_kind(
    lite: dict[str, Parity], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(shapes(1)[0][0]).save(path)
    kvision_edge.main([str(lite["float32"].path), str(path), "--top", "1"])
    line = json.loads(capsys.readouterr().out)
    assert line["path"] == str(path)
    assert [each["name"] in CLASS_NAMES for each in line["top"]] == [True]
    with pytest.raises(ValueError, match="for classification: open it with Classifier"):
        kvision_edge.Detector(lite["float32"].path)


def test_onnx_runs_any_batch(model: keras.Model, tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    parity = onnx(model, tmp_path / "shapes.onnx")
    assert parity.differences[0].relative < 1e-4
    session = runtime.InferenceSession(str(parity.path))
    images = shapes(7, seed=2)[0]
    logits, scores = session.run(["logits", "scores"], {"images": images})
    expected = np.asarray(model(images))
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map["kvision.json"]
    assert json.loads(metadata)["class_names"] == CLASS_NAMES


def test_half_precision_exports_its_float32_twin() -> None:
    model = small_vit(dtype="mixed_bfloat16")
    twin = in_float32(model)
    policies = {layer.dtype_policy.name for layer in twin._flatten_layers()}
    assert policies == {"float32"}
    plain = small_vit()
    plain.set_weights(model.get_weights())
    images = shapes(4)[0]
    np.testing.assert_allclose(twin(images), plain(images), atol=1e-5)
    assert np.abs(np.asarray(model(images)) - np.asarray(plain(images))).max() > 1e-3
    assert in_float32(plain) is plain


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_too_large_is_said_before_anything_is_written(
    model: keras.Model, tmp_path: Path, monkeypatch: Any, form: str
) -> None:
    import kvision.export.limits as limits

    monkeypatch.setattr(limits, "_MAX_BYTES", 1000)
    export = {"tflite": tflite, "onnx": onnx}[form]
    with pytest.raises(ValueError, match=r"GB as float32.*SavedModel"):
        export(model, tmp_path / f"shapes.{form}")
    assert not list(tmp_path.iterdir())


def test_published_sizes_and_the_limit() -> None:
    from types import SimpleNamespace

    from kvision.export.limits import check_size

    # ViT-L/16 has 304 million numbers, ViT-H/14 632 million.
    large, huge = (
        SimpleNamespace(variables=[SimpleNamespace(shape=(millions, 1000, 1000))])
        for millions in (304, 632)
    )
    check_size(large, "TFLite")
    with pytest.raises(ValueError, match=r"2\.53 GB as float32.*end at 2\.15 GB"):
        check_size(huge, "TFLite")


def test_differences_are_errors_and_the_old_file_stays(
    model: keras.Model, data: tf.data.Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "shapes.tflite"
    path.write_bytes(b"the old file")
    dark = shapes(20, seed=1)[0] // 16
    with pytest.raises(ParityError, match="get another top class") as error:
        tflite(model, path, quantize="int8", calibration=dark, data=data)
    assert "accuracy fell" in str(error.value) or "correlated" in str(error.value)
    assert path.read_bytes() == b"the old file"


def test_labels_of_any_kind(model: keras.Model, tmp_path: Path) -> None:
    images, labels = shapes(20, seed=9)
    one_hot = tf.one_hot(labels, 3)
    data = tf.data.Dataset.from_tensor_slices((images, one_hot)).batch(8)
    path = tmp_path / "a.tflite"
    parity = tflite(model, path, quantize="dynamic", data=data, num_images=16)
    (found,) = parity.differences
    assert found.num_images == 16
    tops = np.asarray(model(images[:16])).argmax(axis=1)
    assert found.accuracy[0] == np.mean(tops == labels[:16])
    boxes = data.map(lambda image, label: (image, {"gt_boxes": label}))
    with pytest.raises(ValueError, match=r"batches \(images, labels\).*gt_boxes"):
        tflite(model, path, data=boxes)


def test_an_undecided_model_proves_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = keras.Input((16, 16, 1), name="images")
    hidden = layers.ImagePreprocessing(resize="pad", name="preprocessing")(images)
    hidden = keras.layers.Flatten()(hidden)
    logits = layers.ClassificationHead(2, name="head")(hidden)
    model = keras.Model(images, logits, name="grey")
    parity = tflite(model, tmp_path / "grey.tflite")
    assert not parity.is_conclusive
    assert "Was it trained?" in capsys.readouterr().out
    photo = np.full((9, 30, 3), 77, np.uint8)
    found = kvision_edge.Classifier(parity.path).classify(photo)
    assert found.names == ["0", "1"]
    run = runner(parity.path.read_bytes())
    assert run(np.zeros((3, 16, 16, 1), np.uint8))["scores"].shape == (3, 2)


def test_a_png_of_colours_and_a_grey_model(tmp_path: Path) -> None:
    images = keras.Input((16, 24, 1), name="images")
    hidden = layers.ImagePreprocessing(name="preprocessing")(images)
    hidden = keras.layers.Flatten()(hidden)
    head = layers.ClassificationHead(3, kernel_initializer="uniform", name="head")
    model = keras.Model(images, head(hidden), name="grey")
    parity = saved_model(model, tmp_path / "grey/1")
    assert len(parity.differences) == 3
    photo = shapes(1, 40)[0][0]
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    run = tf.saved_model.load(str(parity.path)).signatures["encoded_images"]
    found = run(encoded_images=tf.constant([file.getvalue()]))["scores"][0]
    (expected,) = kvision.classify(model, photo)
    np.testing.assert_allclose(found, expected.scores, atol=0.02)


def test_what_cannot_be_exported(model: keras.Model, tmp_path: Path) -> None:
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Expected a detector"):
        tflite(plain, tmp_path / "a.tflite")
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        onnx(model, tmp_path / "a.tflite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ImportError, match=r"kvision\[onnx\]"):
            onnx(model, tmp_path / "a.onnx")
