"""`kvision convert`: from a checkpoint of timm to files of ours."""

import json
import pickle
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import kvision as kv
import kvision_cli
from kvision.cli.convert import run
from tests.weights.timm_file import tensors_of, write

ARGUMENTS = ("num_classes=3", "class_token=False", "pooling=average")


def build() -> keras.Model:
    return kv.models.vit(
        "Lite-2/8",
        image_size=(32, 32),
        num_classes=3,
        class_token=False,
        pooling="average",
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    model = build()
    path = write(tmp_path_factory.mktemp("timm"), tensors_of(model))
    kv.weights.load(model, path)
    return path, model


def convert(path: Path, output: Path, *settings: str, model: str = "vit") -> dict:
    variant, size = "Lite-2/8", (32, 32)
    return run(path, model, variant, size, settings, "auto", None, (), False, output)


def test_to_a_model(expected: tuple[Path, keras.Model], tmp_path: Path) -> None:
    path, model = expected
    output = tmp_path / "new" / "vit.keras"
    found = convert(path, output, *ARGUMENTS)
    assert found["file"] == output
    assert found["source"] == "timm"
    assert found["resized"] + found["fresh"] + found["unused"] == ()
    images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    loaded = keras.models.load_model(output)
    np.testing.assert_array_equal(loaded(images), model(images))


def test_to_weights(expected: tuple[Path, keras.Model], tmp_path: Path) -> None:
    model = expected[1]
    path, output = tmp_path / "dino.pth", tmp_path / "vit.safetensors"
    tensors = tensors_of(model)
    others = {name: x + 1 for name, x in tensors.items()}
    path.write_bytes(pickle.dumps({"student": others, "teacher": tensors}))
    arguments = ["convert", str(path), *ARGUMENTS, "--model", "vit", "--json"]
    arguments += ["--part", "teacher"]
    arguments += ["--variant", "Lite-2/8", "--image-size", "32"]
    result = CliRunner().invoke(kvision_cli.cli, [*arguments, "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert "matched" in result.output
    assert json.loads(result.stdout.splitlines()[-1])["fresh"] == []
    other = build()
    kv.weights.load(other, output)
    for old, new in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_is_wrong_is_said(
    expected: tuple[Path, keras.Model], tmp_path: Path
) -> None:
    path, output = expected[0], tmp_path / "vit.keras"
    with pytest.raises(ValueError, match=r"must end in \.keras or \.safetensors"):
        convert(path, tmp_path / "vit.h5")
    with pytest.raises(ValueError, match="No model 'vits'"):
        convert(path, output, model="vits")
    with pytest.raises(ValueError, match="unexpected keyword argument 'heads'"):
        convert(path, output, "heads=3")
    with pytest.raises(ValueError, match="1 missing in the file: cls_token"):
        convert(path, output, "num_classes=3")
    assert not output.exists()


def test_a_preset_names_a_model(tmp_path: Path) -> None:
    name, settings = "vit_ti16_augreg_imagenet1k", ("num_classes=3",)
    model = kv.create(name, weights=None, num_classes=3, image_size=(32, 32))
    path = write(tmp_path, tensors_of(model))
    output = tmp_path / "vit.keras"
    found = run(path, name, None, (32, 32), settings, "auto", None, (), False, output)
    assert found["fresh"] + found["unused"] == ()
    loaded = keras.models.load_model(output)
    kernel = loaded.get_layer("block_0").attention.qkv.kernel
    np.testing.assert_array_equal(
        kernel, tensors_of(model)["blocks.0.attn.qkv.weight"].T
    )


def test_an_argument_that_is_missing(tmp_path: Path) -> None:
    output = tmp_path / "mask_rcnn.keras"
    with pytest.raises(ValueError, match=r"'class_names'. Arguments are given as KEY="):
        run(output, "mask_rcnn", None, None, (), "auto", None, (), False, output)
