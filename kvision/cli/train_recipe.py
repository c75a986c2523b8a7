"""What `kvision train` does for every task: settings become a recipe; then `fit`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvision.train import fit
from kvision.train.recipe import Recipe
from kvision.train.settings import read_assignments, read_yaml

__all__ = ["train"]


def train(
    kind: type[Recipe],
    data: Path | None,
    settings: Sequence[str],
    recipe: Path | None,
    resume: Path | None,
    name: str | None,
    runs: Path,
    **options: Any,
) -> dict[str, Any]:
    """Train a model, or go on with a run.

    KEY=VALUE is stronger than an option, an option stronger than the file.

    Args:
        kind: the recipe of the task.
        data: what to train on.
        settings: KEY=VALUE texts, of recipes and of models.
        recipe: YAML file of settings.
        resume: folder of a run to go on with.
        name: name of the run folder.
        runs: where run folders are made.
        **options: settings of a recipe by name; None where not given.

    Returns:
        The run folder, why and when it stopped, and the scores of the best epoch.
    """
    changes = {key: value for key, value in options.items() if value is not None}
    changes |= read_assignments(settings)
    if resume is not None:
        result = fit(resume=resume, changes=changes)
    else:
        values = read_yaml(recipe) if recipe is not None else {}
        if data is not None:
            values["data"] = str(data)
        chosen = kind.from_settings({**values, **changes})
        result = fit(chosen, name=name, runs=runs)
    return {
        "folder": result.folder,
        "stopped": result.stopped,
        "epochs": result.epochs,
        "seconds": result.seconds,
        "scores": result.scores,
    }
