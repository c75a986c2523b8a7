"""Training: recipes, runs and callbacks."""

from kvision.train.recipes import DetectRecipe
from kvision.train.run import RunResult, fit

__all__ = ["DetectRecipe", "RunResult", "fit"]
