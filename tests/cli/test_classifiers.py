"""eval, predict and export of a classifier: tables, pictures and json."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import kvision.export
from kvision import layers
from kvision.cli import evaluate, export, predict
from kvision.cli.arguments import labelled_images, load_detector, load_model

NAMES = ["blue", "green", "red"]


def colours(channels: int = 3) -> keras.Model:
    """Names the strongest colour of an image, for certain."""
    images = keras.Input((16, 16, channels), name="images")
    hidden = layers.ImagePreprocessing(127.5, 127.5, name="preprocessing")(images)
    hidden = keras.layers.GlobalAveragePooling2D(name="mean")(hidden)
    model = keras.Model(
        images, layers.ClassificationHead(3, NAMES, name="head")(hidden)
    )
    if channels == 3:
        model.get_layer("head").kernel.assign(np.eye(3)[::-1] * 4)
    return model


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "colours.keras"
    colours().save(path)
    return path


def write_folder(folder: Path, names: list[str] = NAMES, number: int = 3) -> None:
    """Images of one colour in folders of the colour's name; the first of each lies."""
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for k in range(number):
            pixels = np.full((20, 30, 3), 10 * k, np.uint8)
            pixels[..., 2 - (label + (k == 0)) % 3] = 200 + k
            Image.fromarray(pixels).save(folder / name / f"{k}.png")


def evaluated(model: Path, data: Path, **options: Any) -> dict[str, Any]:
    settings = {
        "images": None,
        "set_name": None,
        "batch_size": 2,
        "max_detections": 5,
        "score_threshold": 0.5,
        "output": None,
    }
    return evaluate.run(model, data, **(settings | options))


def test_scores_tables_and_pictures(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "data/train", number=2)
    write_folder(tmp_path / "data/val")
    output = tmp_path / "out"
    scores = evaluated(model_file, tmp_path / "data", output=output)
    printed = capsys.readouterr().out
    assert scores["num_images"] == 9  # val, not train
    assert scores["accuracy"] == pytest.approx(6 / 9)
    expected = 2 * np.eye(3, dtype=int) + np.roll(np.eye(3, dtype=int), 1, axis=1)
    np.testing.assert_array_equal(scores["confusion"], expected)
    for text in ("accuracy", "0.667", "auc", "green", "calibration_error", " to "):
        assert text in printed
    names = {path.name for path in scores["files"]}
    assert names == {
        "scores.json",
        "confusion_matrix.png",
        "calibration.png",
        "roc.png",
    }
    assert all(path.stat().st_size for path in scores["files"])
    stored = json.loads((output / "scores.json").read_text())
    assert stored["per_class"]["green"]["support"] == 3


def test_sets_of_an_npz_file(model_file: Path, tmp_path: Path) -> None:
    images = np.zeros((4, 12, 12, 3), np.uint8)
    images[..., 0] = 255
    labels = np.array([2, 2, 2, 0])
    np.savez(
        tmp_path / "a.npz",
        test_images=images,
        test_labels=labels,
        val_images=images[:2],
        val_labels=labels[:2],
    )
    assert evaluated(model_file, tmp_path / "a.npz")["accuracy"] == 0.75
    assert evaluated(model_file, tmp_path / "a.npz", set_name="val")["num_images"] == 2


def test_one_class_alone_has_no_auc(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.zeros((2, 12, 12, 3), np.uint8)
    images[0, ..., 0] = images[1, ..., 2] = 255
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([2, 2]))
    scores = evaluated(model_file, tmp_path / "a.npz")
    assert scores["auc"] is None
    assert scores["accuracy"] == 0.5
    printed = capsys.readouterr().out
    assert "AUC is undefined" in printed
    assert "without AUC: blue, green" in printed


def test_grey_model_on_folders(tmp_path: Path) -> None:
    write_folder(tmp_path)
    data = labelled_images(colours(1), tmp_path, batch_size=4)
    images, labels = next(iter(data))
    assert images.shape[1:] == (16, 16, 1)
    assert data.num_images == 9
    assert labels.dtype == np.int32


def test_pictures_and_classes(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "photos", ["red"], 2)
    result = predict.run(
        model_file,
        [str(tmp_path / "photos/red")],
        score_threshold=0.5,
        batch_size=4,
        on_error="raise",
        output=tmp_path / "out",
        top=2,
    )
    names = [path.name for path in result["files"]]
    assert names == ["0_classes.png", "1_classes.png", "classifications.json"]
    assert all(path.stat().st_size for path in result["files"])
    written = json.loads(result["files"][-1].read_text())
    assert written == result["classifications"]
    assert [len(each["top"]) for each in written] == [2, 2]
    assert written[1]["top"][0]["name"] == "blue"  # label 0 of the only folder
    assert "blue" in capsys.readouterr().out


def test_training_set_calibrates_and_validation_set_compares(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "data/train", number=2)
    write_folder(tmp_path / "data/val")
    calls: dict[str, Any] = {}

    def write(form: str) -> Any:
        real = getattr(kvision.export, form)

        def call(model: Any, path: Path, **options: Any) -> Any:
            calls[form] = options
            return real(model, path, **options)

        return call

    for form in ("saved_model", "tflite"):
        monkeypatch.setattr(kvision.export, form, write(form))
    result = export.run(
        model_file,
        ["saved_model", "tflite"],
        quantize="float16",
        precision=None,
        data=tmp_path / "data",
        images=None,
        name=None,
        output=tmp_path / "models",
    )
    assert calls["tflite"]["calibration"].num_images == 6
    assert calls["tflite"]["data"].num_images == 9
    assert result["files"] == {
        "saved_model": tmp_path / "models/colours/1",
        "tflite": tmp_path / "models/colours/colours-float16.tflite",
    }
    (found,) = result["parity"]["tflite"]["differences"]
    assert found["accuracy"] == pytest.approx((6 / 9, 6 / 9))
    json.dumps(result["parity"])


def test_a_classifier_is_no_detector(model_file: Path) -> None:
    assert load_model(model_file).get_layer("head").class_names == NAMES
    with pytest.raises(ValueError, match="holds a classifier, not a detector"):
        load_detector(model_file)
