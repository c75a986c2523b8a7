"""`kvision train detect`: a recipe from a file, options and KEY=VALUE; then `fit`."""

from typing import Any

from kvision.cli.train_recipe import train
from kvision.train import DetectRecipe

__all__ = ["run"]


def run(**options: Any) -> dict[str, Any]:
    """Train a detector, or go on with a run.

    Args:
        **options: as of `kvision.cli.train_recipe.train`.

    Returns:
        The run folder, why and when it stopped, and the scores of the best epoch.
    """
    return train(DetectRecipe, **options)
