"""kvision train classify: which settings reach `fit`, and mistakes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import kvision_cli
from kvision.cli import train_recipe


def invoke(*arguments: str | Path) -> Result:
    words = ["train", "classify", *map(str, arguments)]
    return CliRunner().invoke(kvision_cli.cli, words)


def test_settings_reach_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []

    def fit(recipe: Any = None, **options: Any) -> SimpleNamespace:
        calls.append(recipe)
        return SimpleNamespace(
            folder=Path("runs/x"), stopped="epochs", epochs=1, seconds=2.0, scores={}
        )

    monkeypatch.setattr(train_recipe, "fit", fit)
    words = ["--variant", "Ti/8", "--image-size", "32", "--epochs", "3"]
    result = invoke(tmp_path, *words, "layer_decay=0.7", "num_register_tokens=2")
    assert result.exit_code == 0, result.stderr
    (recipe,) = calls
    assert (recipe.model, recipe.variant, recipe.image_size) == (
        "vit",
        "Ti/8",
        (32, 32),
    )
    assert (recipe.epochs, recipe.layer_decay) == (3, 0.7)
    assert recipe.arguments == {"num_register_tokens": 2}


def test_misspelt_names_get_a_suggestion(tmp_path: Path) -> None:
    result = invoke(tmp_path, "epoch=3")
    assert result.exit_code == 1
    assert result.stderr == "error: No setting 'epoch'. Did you mean epochs?\n"
    assert "Did you mean vit" in invoke(tmp_path, "model=vti").stderr


def test_data_is_needed() -> None:
    result = invoke()
    assert result.exit_code == 2
    assert "Missing argument 'DATA' (or --resume RUN)" in result.stderr
