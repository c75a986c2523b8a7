"""TFLite files of all kinds: what is in them, what LiteRT makes of them, refusals."""

import json
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import kvision
import kvision_edge
from kvision.export import Parity, ParityError, tflite
from kvision.export.flatbuffer import read, write
from kvision.export.interpreter import runner
from kvision.export.parity import Run, in_batches
from kvision.export.twin import in_float32
from tests.export.detector import (
    CLASS_NAMES,
    small_detector,
    textured_images,
    tiny_backbone,
)
from tests.export.graph import operators

KINDS = ["float32", "float16", "dynamic", "int8"]


@pytest.fixture(scope="module")
def perfect(reference: Run, images: np.ndarray) -> tf.data.Dataset:
    """A data set on which the model is perfect: its own detections are the objects."""
    found = in_batches(reference, {"images": images})
    targets = {
        "gt_boxes": found["boxes"],
        "gt_labels": found["labels"],
        "gt_masks": np.rint(found["masks"] * 255).astype(np.uint8),
    }
    return tf.data.Dataset.from_tensor_slices((images, targets)).batch(4)


# Largest box in pixels, score, and share of detections without a partner. Weights of
# chance amplify rounding: trained models lose less.
LIMITS = {
    "float32": (1e-3, 1e-4, 0.0),
    "float16": (0.02, 2e-3, 0.0),
    "dynamic": (0.3, 0.05, 0.15),
    "int8": (0.3, 0.05, 0.2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_model(exports: dict[str, Parity], kind: str) -> None:
    (found,) = exports[kind].differences
    boxes, scores, unmatched = LIMITS[kind]
    assert exports[kind].is_conclusive
    assert (found.form, found.num_images) == (kind, 8)
    assert found.num_detections >= 50
    assert found.num_unmatched <= unmatched * found.num_detections
    assert found.boxes.largest <= boxes
    assert found.scores.largest <= scores
    assert (found.tolerance is None) == (kind != "float32")


def test_kinds_differ_more_the_fewer_bits_they_have(exports: dict[str, Parity]) -> None:
    masks = [exports[kind].differences[0].masks.median for kind in KINDS]
    assert masks == sorted(masks)
    assert masks[0] < masks[1] / 10 < masks[2] / 10


@pytest.mark.parametrize("kind", KINDS)
def test_builtin_ops_only(exports: dict[str, Parity], kind: str) -> None:
    found = operators(exports[kind].path.read_bytes())
    assert not [each for each in found if each.kind == "CUSTOM"]
    # Suppression of proposals and of detections is inside.
    assert [e.kind for e in found].count("NON_MAX_SUPPRESSION_V4") == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 4])
def test_litert_runs_it(
    exports: dict[str, Parity], images: np.ndarray, kind: str, threads: int
) -> None:
    content = exports[kind].path.read_bytes()
    interpreter = Interpreter(str(exports[kind].path), num_threads=threads)
    run = interpreter.get_signature_runner()
    (entry,) = run.get_input_details().values()
    assert (entry["name"], entry["dtype"]) == ("serving_default_images:0", np.uint8)
    np.testing.assert_array_equal(entry["shape"], [1, 64, 96, 3])
    found = run(images=images[:1])
    assert {name: (v.shape, v.dtype.name) for name, v in found.items()} == {
        "boxes": ((1, 20, 4), "float32"),
        "scores": ((1, 20), "float32"),
        "labels": ((1, 20), "int32"),
        "masks": ((1, 20, 28, 28), "float32"),
        "num_detections": ((1,), "int32"),
    }
    expected = runner(content)(images[:1])
    assert expected["num_detections"][0] >= 5
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4)


def test_sizes(exports: dict[str, Parity], detector: keras.Model) -> None:
    weights = sum(
        int(np.prod(variable.shape))
        for variable in detector.weights
        if variable.path.endswith("kernel") and np.prod(variable.shape) >= 1024
    )
    assert weights > 50_000
    full = exports["float32"].num_bytes
    # Of 4 bytes a weight 2 and 1 are left; anchors and the graph stay as they are.
    for kind, saved in (("float16", 2), ("dynamic", 3), ("int8", 3)):
        assert full - exports[kind].num_bytes == pytest.approx(
            saved * weights, rel=0.1
        ), kind
        assert exports[kind].num_bytes == exports[kind].path.stat().st_size


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_it_is(exports: dict[str, Parity], kind: str) -> None:
    with zipfile.ZipFile(exports[kind].path) as archive:
        assert archive.testzip() is None
        description = json.loads(archive.read("kvision.json"))
        assert archive.read("labels.txt").decode().split() == CLASS_NAMES
    assert description["quantize"] == kind
    assert description["class_names"] == CLASS_NAMES
    assert description["image_size"] == [64, 96]
    assert description["num_channels"] == 3
    assert description["resize"] == "pad"
    assert description["max_detections"] == 20
    assert description["score_threshold"] == 0.05
    assert description["kvision_version"] == kvision.__version__


def test_loss_of_ap_is_measured(
    converted: None, detector: keras.Model, perfect: tf.data.Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "half.tflite"
    parity = tflite(detector, path, quantize="float16", data=perfect, num_images=4)
    (found,) = parity.differences
    assert found.max_ap_lost == 0.002
    assert found.ap.keys() == {"box_ap", "mask_ap"}
    for before, after in found.ap.values():
        assert before == pytest.approx(1.0, abs=1e-6)
        assert 0.998 <= after <= 1.0
    assert path.exists()


def test_lost_ap_is_an_error_and_the_old_file_stays(
    converted: None,
    detector: keras.Model,
    images: np.ndarray,
    perfect: tf.data.Dataset,
    tmp_path: Path,
) -> None:
    path = tmp_path / "shapes.tflite"
    path.write_bytes(b"the old file")
    # Photos sixteen times too dark: all activations of real ones are cut off.
    with pytest.raises(ParityError, match=r"box_ap fell from 1\.0000 to 0\.") as error:
        tflite(
            detector,
            path,
            quantize="int8",
            calibration=images // 16,
            images=images,
            data=perfect,
        )
    assert "shapes.tflite was not written" in str(error.value)
    assert "mask_ap fell" in str(error.value)
    (found,) = error.value.parity.differences
    assert found.ap["box_ap"][1] < 0.5
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_calibration_with_objects_measures_ap_too(
    converted: None, detector: keras.Model, perfect: tf.data.Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "shapes.tflite"
    with pytest.raises(ParityError) as error:  # by far more than a trained model
        tflite(detector, path, quantize="int8", calibration=perfect)
    (found,) = error.value.parity.differences
    assert found.ap["box_ap"][0] == pytest.approx(1.0, abs=1e-6)
    assert 0.5 < found.ap["box_ap"][1] < 0.99
    assert found.num_images == 8
    assert not path.exists()


def test_a_difference_of_float32_is_an_error(
    converted: None,
    detector: keras.Model,
    images: np.ndarray,
    exports: dict[str, Parity],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As if the converter had rounded weights.
    rounded = write(read(exports["dynamic"].path.read_bytes()))
    module = sys.modules["kvision.export.tflite"]
    monkeypatch.setattr(module, "convert", lambda _: rounded)
    with pytest.raises(ParityError, match=r"float32: .* no partner within 0\.5 px"):
        tflite(detector, tmp_path / "shapes.tflite", images=images)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def odd() -> keras.Model:
    """Grey, stretched, in half precision and without masks."""
    policy = "mixed_bfloat16"
    backbone = tiny_backbone(num_channels=1, dtype=policy)
    options = {"num_channels": 1, "resize": "stretch", "dtype": policy}
    return small_detector(masks=False, backbone=backbone, **options)


@pytest.fixture(scope="module")
def odd_lite(odd: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Parity:
    path = tmp_path_factory.mktemp("odd") / "odd.tflite"
    return tflite(odd, path, images=textured_images(6, channels=1))


def test_half_precision_exports_its_float32_twin(
    odd: keras.Model, odd_lite: Parity
) -> None:
    assert odd_lite.is_conclusive
    assert odd_lite.differences[0].masks is None
    content, images = odd_lite.path.read_bytes(), textured_images(2, channels=1)
    found = runner(content)(images)
    assert "masks" not in found
    twin = small_detector(masks=False, num_channels=1, resize="stretch")
    twin.set_weights(odd.get_weights())
    np.testing.assert_array_equal(found["labels"], twin(images)["labels"])
    np.testing.assert_allclose(found["boxes"], twin(images)["boxes"], atol=1e-3)
    assert {each.output for each in operators(content)} <= {
        *("FLOAT32", "INT32", "INT64", "BOOL", "UINT8")
    }


def test_grey_and_stretched(odd: keras.Model, odd_lite: Parity) -> None:
    photo = textured_images(1, (40, 150), channels=1)[0]
    found = kvision_edge.Detector(odd_lite.path).detect(photo, 0.06)
    (expected,) = kvision.detect(in_float32(odd), photo, 0.06)
    assert len(expected) >= 5
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.masks is None
    # Padded, the photo would fill the upper 26 of 64 rows.
    assert found.boxes[:, 3].max() > 30


def test_nothing_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_detector(masks=False, score_threshold=0.9999)
    background = np.zeros(4)
    background[-1] = 50
    model.get_layer("box_head").classes.bias.assign(background)
    parity = tflite(model, tmp_path / "nothing.tflite", images=textured_images(2))
    assert not parity.is_conclusive
    assert "0 detections to compare, which proves little" in capsys.readouterr().out
    found = runner(parity.path.read_bytes())(textured_images(2))
    assert found["num_detections"].tolist() == [0, 0]
    assert (found["labels"] == -1).all()
    assert not found["boxes"].any()
    assert len(kvision_edge.Detector(parity.path).detect(textured_images(1)[0], 0)) == 0


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (None, r"needs calibration=: a data set .*quantize=\"dynamic\""),
        (np.random.default_rng(0).random((2, 64, 96, 3)), r"values 0\.\.255.* is 1"),
        (np.zeros((2, 64, 96, 1)), r"\(N, H, W, 3\).* shape \(2, 64, 96, 1\)"),
        ([], "no image"),
        (3, "paths, arrays or a data set. Received: int"),
        (np.full((2, 64, 96, 3), 128), "never change over the 2 calibration images"),
    ],
    ids=["none", "0..1", "grey", "empty", "number", "blank"],
)
def test_calibration_that_cannot_be(
    converted: None,
    detector: keras.Model,
    tmp_path: Path,
    calibration: object,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        tflite(
            detector, tmp_path / "a.tflite", quantize="int8", calibration=calibration
        )
    assert not list(tmp_path.iterdir())


def test_refused_arguments(detector: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"quantize must be one of .*'int4'"):
        tflite(detector, tmp_path / "a.tflite", quantize="int4")
    with pytest.raises(ValueError, match=r"end in \.tflite.*model\.lite"):
        tflite(detector, tmp_path / "model.lite")
    with pytest.raises(ValueError, match=r"detector of kvision\.models.*Sequential"):
        tflite(keras.Sequential(), tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())
