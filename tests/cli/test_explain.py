"""kvision explain: pictures of what small models look at."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import kvision as kv
import kvision_cli
from kvision.cli import explain


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def saved(folder: Path, build: Any) -> Path:
    model = build("Ti/16", class_names=["a", "b", "c"], image_size=(48, 48))
    model.save(folder / "model.keras")
    return folder / "model.keras"


def test_pictures_of_a_pruned_model(tmp_path: Path, photo: Path) -> None:
    model = saved(tmp_path, kv.models.dynamic_vit)
    result = explain.run(model, photo, "block_4", 1, tmp_path / "out")
    names = [path.name for path in result["files"]]
    parts = ["classes", "attention", "rollout", "positions", "kept"]
    assert names == [f"photo_{part}.png" for part in parts]
    for path in result["files"]:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
    assert result["block"] == "block_4"
    assert list(result["kept"].values()) == [6, 4, 3]
    assert {entry["name"] for entry in result["top"]} == {"a", "b", "c"}


def test_an_unknown_block_is_an_error_in_json(tmp_path: Path, photo: Path) -> None:
    model = saved(tmp_path, kv.models.vit)
    command = ["explain", str(model), str(photo), "--block", "12", "--json"]
    done = CliRunner().invoke(kvision_cli.cli, command)
    assert done.exit_code == 1
    answer = json.loads(done.stdout.splitlines()[-1])
    assert not answer["ok"]
    assert "12 blocks" in answer["error"]
