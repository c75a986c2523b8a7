"""kvision train detect: which settings reach `fit`, and one short run."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import kvision_cli
from kvision.cli import train_recipe
from tests.cli.coco_folder import write_coco


def invoke(*arguments: str | Path) -> Result:
    words = ["train", "detect", *map(str, arguments)]
    return CliRunner().invoke(kvision_cli.cli, words)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Record the calls of `fit` instead of training."""
    found: list[tuple[Any, dict[str, Any]]] = []

    def fit(recipe: Any = None, **options: Any) -> SimpleNamespace:
        found.append((recipe, options))
        return SimpleNamespace(
            folder=Path("runs/x"), stopped="epochs", epochs=1, seconds=2.0, scores={}
        )

    monkeypatch.setattr(train_recipe, "fit", fit)
    return found


def test_value_beats_option_beats_file(
    calls: list[tuple[Any, dict[str, Any]]], tmp_path: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("epochs: 1\nbatch_size: 1\nseed: 1\nbox_num_samples: 32\n")
    result = invoke(
        tmp_path,
        "seed=3",
        "box_num_samples=64",
        "--recipe",
        file,
        *("--batch-size", 2, "--seed", 2, "--image-size", "64x128"),
        *("--weights", "none", "--name", "mine", "--runs", tmp_path),
    )
    assert result.exit_code == 0, result.stderr
    ((recipe, options),) = calls
    assert (recipe.epochs, recipe.batch_size, recipe.seed) == (1, 2, 3)
    assert recipe.image_size == (64, 128)
    assert recipe.weights is None
    assert recipe.arguments == {"box_num_samples": 64}
    assert recipe.data == str(tmp_path)
    assert options == {"name": "mine", "runs": tmp_path}


def test_resume_takes_changes_and_no_data(
    calls: list[tuple[Any, dict[str, Any]]], tmp_path: Path
) -> None:
    assert invoke("--resume", tmp_path, "patience=5", "--epochs", 9).exit_code == 0
    assert calls == [
        (None, {"resume": tmp_path, "changes": {"epochs": 9, "patience": 5}})
    ]


def test_path_with_an_equals_sign_is_data(
    calls: list[tuple[Any, dict[str, Any]]], tmp_path: Path
) -> None:
    folder = tmp_path / "a=b"
    folder.mkdir()
    assert invoke(folder, "epochs=1").exit_code == 0
    assert calls[0][0].data == str(folder)


def test_misspelt_setting_gets_a_suggestion(tmp_path: Path) -> None:
    result = invoke(tmp_path, "epoch=3")
    assert result.exit_code == 1
    assert result.stderr == "error: No setting 'epoch'. Did you mean epochs?\n"


@pytest.mark.slow
def test_short_run(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", 2)
    write_coco(tmp_path, "val", 1)
    result = invoke(
        tmp_path,
        *("--weights", "none", "--image-size", 64, "--batch-size", 1, "--epochs", 1),
        *("pyramid_channels=8", "box_hidden_dim=8", "mask_channels=8"),
        *("--runs", tmp_path / "runs", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["stopped"] == "epochs"
    assert "val_box_ap" in json.dumps(summary["scores"])
    assert (Path(summary["folder"]) / "best.keras").exists()


@pytest.mark.slow
def test_sigterm_saves_says_how_to_go_on_and_exits_143(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", 2)
    write_coco(tmp_path, "val", 1)
    small = ["pyramid_channels=8", "box_hidden_dim=8", "mask_channels=8"]
    options = ["--weights", "none", "--image-size", "64", "--batch-size", "1"]
    words = [str(tmp_path), *small, *options, "--epochs", "1000", "--runs", "runs"]
    command = [sys.executable, "-m", "kvision_cli", "train", "detect", *words]
    output = tmp_path / "output.txt"
    with output.open("w") as file:
        run = subprocess.Popen(command, cwd=tmp_path, stdout=file)
        folder = tmp_path / "runs" / tmp_path.name
        wait_for(folder / "results.csv", run)
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=300) == 143
    assert f"--resume runs/{tmp_path.name}" in output.read_text()
    assert list((folder / "checkpoints").glob("*.json"))


def wait_for(path: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a file is there; fail if the process has ended before."""
    while not path.exists():
        assert process.poll() is None, "the run has ended too early"
        time.sleep(0.2)
