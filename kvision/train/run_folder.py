"""The folder of a run: a new one for each, with what was asked for and on what."""

import itertools
from pathlib import Path
from typing import Any

import yaml

from kvision.train import environment
from kvision.train.files import write_text
from kvision.train.recipe import Recipe
from kvision.train.settings import read_assignments, read_yaml
from kvision.train.task import recipe_class

__all__ = ["describe_run", "make_folder", "name_of_data", "read_recipe"]

# What may change when a run goes on: nothing that the saved state is made of.
_CHANGEABLE = (
    "cache",
    "checkpoint_minutes",
    "clipnorm",
    "epochs",
    "evaluate_every",
    "learning_rate",
    "max_minutes",
    "num_pictures",
    "patience",
    "validation_loss",
)


def make_folder(runs: Path, name: str) -> Path:
    """Make a folder that is not there yet: NAME, or else NAME2, NAME3 ...

    Args:
        runs: the folder of all runs; made if need be.
        name: name of the run.

    Returns:
        The new folder.

    Raises:
        ValueError: if the name is no name of a folder.
    """
    if not name or Path(name).name != name:
        raise ValueError(f"The name of a run must be one of a folder. Received: {name}")
    runs.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = runs / (name if number == 1 else f"{name}{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        break
    return folder


def name_of_data(data: str) -> str:
    """Return a name for a run on data: that of its folder."""
    path = Path(data).absolute()
    folder = path if path.is_dir() else path.parent
    return folder.name or "run"


def describe_run(folder: Path, recipe: Recipe) -> None:
    """Write the recipe, and add this process to `environment.yaml`.

    Args:
        folder: the run folder.
        recipe: the recipe, resolved.
    """
    recipe.to_yaml(folder / "recipe.yaml")
    path = folder / "environment.yaml"
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else []
    sessions = [*(before or []), environment.describe()]
    write_text(path, yaml.safe_dump(sessions, sort_keys=False))


def read_recipe(folder: Path, changes: "dict[str, Any] | list[str]") -> Recipe:
    """Read the recipe of a run that is to go on.

    Args:
        folder: the run folder.
        changes: settings to change, as for `Recipe.with_settings`.

    Returns:
        The recipe.

    Raises:
        ValueError: the folder is not that of a run, or a change would make the saved
            state useless.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise ValueError(f"{folder} is not the folder of a run: it has no {path.name}")
    if not isinstance(changes, dict):
        changes = read_assignments(changes)
    settings = read_yaml(path)
    # Runs of version 0.1 name no task.
    recipe = recipe_class(settings.get("task", "detect")).from_settings(settings)
    changed = recipe.with_settings(changes)
    for name in changes:
        if name not in _CHANGEABLE:
            raise ValueError(
                f"{name} cannot change when a run goes on; {', '.join(_CHANGEABLE)} "
                "can. Start a new run for another model or other data."
            )
    return changed
