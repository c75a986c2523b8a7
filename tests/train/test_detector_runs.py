"""`kvision train detect` on a small detector, in processes of their own.

The processes matter: signals end them, and a run repeats to the last bit only with
TensorFlow's deterministic kernels, which cannot be switched off again.
"""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from kvision.models import Detector
from kvision.train.checkpoints import read_newest
from kvision.train.recipes import DetectRecipe


def start(runs: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "kvision_cli", "train", "detect"]
    return subprocess.Popen(
        [*command, *arguments, "--runs", str(runs), "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", code: int = 0) -> list[str]:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output
    return output.splitlines()


@pytest.fixture(scope="module")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    from tests.train.conftest import TINY

    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    DetectRecipe(data=str(data_folder), num_pictures=2, **TINY).to_yaml(path)
    return path


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path
) -> tuple[Path, dict[str, Any]]:
    """A run that nothing stopped, and what `--json` printed of it."""
    runs = tmp_path_factory.mktemp("whole")
    lines = finish(start(runs, "--recipe", str(tiny_recipe)))
    summary = json.loads(lines[-1])
    return Path(summary["folder"]), summary


def test_a_run_leaves_everything(
    whole: tuple[Path, dict[str, Any]], tiny_recipe: Path
) -> None:
    folder, summary = whole
    assert folder.name == "forms"
    assert summary["stopped"] == "epochs"
    assert summary["scores"]["epoch"] in (0, 1)
    assert "box" in summary["scores"]["per_class"]
    recipe = DetectRecipe.from_yaml(folder / "recipe.yaml")
    assert recipe.monitor == "val_mask_ap"
    assert recipe.arguments == DetectRecipe.from_yaml(tiny_recipe).arguments
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["3", "6"]
    for name in ("loss", "val_loss", "mask_loss", "val_mask_ap", "val_box_ap/disc"):
        assert np.isfinite(float(rows[0][name])), name
    for name in ("train_images.jpg", "curves.png", "validation/201.jpg"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
    assert len(list((folder / "validation").iterdir())) == 2


def test_its_models_load(whole: tuple[Path, dict[str, Any]]) -> None:
    for name in ("best.keras", "last.keras"):
        model = keras.models.load_model(whole[0] / name, safe_mode=True)
        assert isinstance(model, Detector)
        assert model.class_names == ["box", "disc"]
    arrays = read_newest(whole[0] / "checkpoints").arrays
    saved = [a for key, a in arrays.items() if key.startswith("model/")]
    for array, variable in zip(saved, model.variables, strict=True):
        np.testing.assert_array_equal(array, variable.numpy())


def test_a_step_has_one_result(tiny_recipe: Path, tmp_path: Path) -> None:
    # Sums of gradients that TensorFlow had reordered gave a second one in up to half of
    # the steps, the more so on a busy machine.
    command = [sys.executable, "-m", "tests.train.repeat_a_step"]
    result = subprocess.run(
        [*command, str(tiny_recipe), str(tmp_path), "60"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "1"


def test_sigterm_then_resume_equals_the_whole_run(
    whole: tuple[Path, dict[str, Any]], tiny_recipe: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, "--recipe", str(tiny_recipe))
    assert process.stdout is not None
    for line in process.stdout:
        if "step 1/3" in line:
            break
    process.send_signal(signal.SIGTERM)
    said = finish(process, 143)
    folder = tmp_path / "forms"
    assert said[-1] == f"To go on: kvision train detect --resume {folder}"
    stopped_at = read_newest(folder / "checkpoints").state
    assert (stopped_at["epoch"], stopped_at["step"]) != (2, 0)

    lines = finish(start(tmp_path, "--resume", str(folder)))
    assert any(line.startswith("Going on with epoch ") for line in lines)
    assert_same(folder, whole[0])


def assert_same(folder: Path, other: Path) -> None:
    ours, theirs = (read_newest(f / "checkpoints").arrays for f in (folder, other))
    assert list(ours) == list(theirs)
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
    tables = []
    for name in (folder, other):
        rows = csv.DictReader((name / "results.csv").read_text().splitlines())
        tables.append(
            [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        )
    assert tables[0] == tables[1]


@pytest.fixture
def often(tiny_recipe: Path, tmp_path: Path) -> Path:
    """The recipe with a checkpoint after every step."""
    path = tmp_path / "often.yaml"
    recipe = DetectRecipe.from_yaml(tiny_recipe)
    recipe.with_settings(["checkpoint_minutes=1e-9"]).to_yaml(path)
    return path


@pytest.mark.slow
def test_kill_9_then_resume_equals_the_whole_run(
    whole: tuple[Path, dict[str, Any]], often: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, "--recipe", str(often))
    assert process.stdout is not None
    for line in process.stdout:
        if "step 1/3" in line:
            break
    folder = tmp_path / "forms"
    while not list((folder / "checkpoints").glob("*.json")):
        assert process.poll() is None
    process.kill()  # while it writes one
    finish(process, -signal.SIGKILL)
    finish(start(tmp_path, "--resume", str(folder)))
    assert_same(folder, whole[0])


@pytest.mark.slow
def test_ctrl_c_in_validation_then_resume(
    whole: tuple[Path, dict[str, Any]], often: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, "--recipe", str(often))
    folder = tmp_path / "forms" / "checkpoints"
    # The third checkpoint is that of the epoch's last step, before its validation.
    while not (folder / "000003.json").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = finish(process, 130)
    assert said[-1].startswith("To go on: kvision train detect --resume")
    finish(start(tmp_path, "--resume", str(folder.parent)))
    assert_same(folder.parent, whole[0])


@pytest.mark.slow
def test_finished_and_changed_runs_are_refused(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = whole[0]
    for arguments, message in (
        ([], "is finished: 2 of 2 epochs are done. To train longer: --resume"),
        (["batch_size=4", "epochs=4"], "batch_size cannot change when a run goes on"),
        (["epoch=4"], "Did you mean epochs?"),
    ):
        lines = finish(start(tmp_path, "--resume", str(folder), *arguments), 1)
        assert message in json.loads(lines[-1])["error"]
