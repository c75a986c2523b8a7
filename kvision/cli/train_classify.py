"""`kvision train classify`: a recipe from a file, options, KEY=VALUE; then `fit`."""

from typing import Any

from kvision.cli.train_recipe import train
from kvision.train import ClassifyRecipe

__all__ = ["run"]


def run(**options: Any) -> dict[str, Any]:
    """Train a classifier, or go on with a run.

    Args:
        **options: as of `kvision.cli.train_recipe.train`.

    Returns:
        The run folder, why and when it stopped, and the scores of the best epoch.
    """
    return train(ClassifyRecipe, **options)
