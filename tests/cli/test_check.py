"""kvision check: what it prints, returns, and exits with."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import kvision_cli
from kvision.cli import check
from tests.cli.coco_folder import write_coco


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(kvision_cli.cli, ["check", *map(str, arguments)])


def test_sound_folder_exits_0(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", 2)
    write_coco(tmp_path, "val", 1)
    result = invoke(tmp_path, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["ok"]
    assert report["data_sets"] == ["train", "val"]
    assert report["num_images"] == report["num_annotations"] == 3
    assert "0 errors" in result.stdout


def test_faults_exit_1_and_are_named_in_full(tmp_path: Path) -> None:
    path = write_coco(tmp_path, "train", 2)
    (tmp_path / "images/train_1.png").unlink()
    (tmp_path / "images/train_2.png").write_bytes(b"<html>")
    before = path.read_bytes()
    result = invoke(path, "--images", tmp_path / "images", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout.splitlines()[-1])
    assert not report["ok"]
    codes = [f["code"] for f in report["findings"] if f["severity"] == "error"]
    assert {"A1", "A3"} <= set(codes)
    assert report["num_errors"] == len(codes)
    # The table folds long paths: nothing of them is cut off.
    assert "train_2.png" in result.stdout.replace("\n", "").replace("│", "")
    assert "…" not in result.stdout
    assert path.read_bytes() == before


def test_same_photo_in_both_sets_is_found(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", 1)
    write_coco(tmp_path, "val", 1)
    photo = (tmp_path / "images/train_1.png").read_bytes()
    (tmp_path / "images/val_1.png").write_bytes(photo)
    report = check.run(tmp_path, None)
    assert report["ok"]
    assert report["num_warnings"] == 1
    assert "A13" in [found["code"] for found in report["findings"]]


def test_images_with_a_folder_is_an_error(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", 1)
    with pytest.raises(ValueError, match="--images belongs to a json file"):
        check.run(tmp_path, tmp_path / "images")
    result = invoke(tmp_path / "images")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: No COCO instances json in")
