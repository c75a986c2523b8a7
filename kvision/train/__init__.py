"""Training: recipes, runs, optimizers, distillation and callbacks."""

from kvision.train.classify_recipe import ClassifyRecipe
from kvision.train.detect_recipe import DetectRecipe
from kvision.train.distillation import distill
from kvision.train.optimizers import make_optimizer
from kvision.train.run import RunResult, fit

__all__ = [
    "ClassifyRecipe",
    "DetectRecipe",
    "RunResult",
    "distill",
    "fit",
    "make_optimizer",
]
