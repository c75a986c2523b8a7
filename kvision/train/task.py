"""What a run needs to know of its task; everything else is the same for all."""

from pathlib import Path
from typing import Any, Protocol

import keras

from kvision.train.recipe import Recipe

__all__ = ["Scorer", "Sources", "Task", "recipe_class", "task_of"]


class Sources(Protocol):
    """Where the images of a run come from."""

    @property
    def val(self) -> Any:
        """What is validated on, or None."""

    def training(self, epoch: int = 0, step: int = 0) -> Any:
        """Make the endless training set from a step of an epoch on.

        What comes is a pure function of seed, epoch and step. It has the attributes
        class_names, num_images and steps_per_epoch.
        """

    def validation(self, class_names: list[str]) -> Any:
        """Make the validation set: each image once, as it is; None without one."""


class Scorer(Protocol):
    """Scores a model on the validation set.

    Attributes:
        dataset: the validation set.
        scores: figures of the last scoring, as json knows them.
    """

    dataset: Any
    scores: dict[str, Any]

    def set_model(self, model: Any) -> None:
        """Take the model to score."""

    def on_train_begin(self) -> None:
        """Check that model and data agree before time is spent."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Write the figures of this epoch into its logs."""


class Task(Protocol):
    """The functions of `kvision.train.detect` and `kvision.train.classify`."""

    def find_sources(self, recipe: Any) -> Sources:
        """Find the data of a recipe."""

    def build_model(
        self, recipe: Any, train_set: Any, load_weights: bool = True
    ) -> keras.Model:
        """Build and compile the model of a recipe, its optimizer built."""

    def evaluates_losses(self, recipe: Any) -> bool:
        """Say whether a validation runs `Model.evaluate` for the losses too."""

    def product_of(self, model: Any) -> keras.Model:
        """Return what is scored, drawn and saved of the model that is trained."""

    def figure_names(self, recipe: Any, model: Any) -> list[str]:
        """Return the figures that a validation adds to an epoch's logs."""

    def make_scorer(self, recipe: Any, sources: Any, model: Any, dataset: Any) -> Any:
        """Make what scores the model; a `Scorer`, or None without data for it."""

    def image_ids(self, sources: Any, epoch: int, step: int) -> list[Any]:
        """Name the images of a training batch."""

    def identity(self, dataset: Any) -> dict[str, Any]:
        """Describe training data so that other data is noticed."""

    def draw_training(self, dataset: Any, class_names: list[str], path: Path) -> None:
        """Draw the first training images as the model sees them."""

    def draw_validation(
        self, model: Any, dataset: Any, folder: Path, number: int
    ) -> None:
        """Draw the truth of the first images beside what the model finds."""


def task_of(recipe: Recipe) -> Task:
    """Return the module of a recipe's task.

    Args:
        recipe: the recipe.

    Returns:
        Its functions.
    """
    from kvision.train import classify, detect
    from kvision.train.classify_recipe import ClassifyRecipe

    task: Task = classify if isinstance(recipe, ClassifyRecipe) else detect
    return task


def recipe_class(task: str) -> type[Recipe]:
    """Return the recipe of a task.

    Args:
        task: "detect" or "classify".

    Returns:
        The class.

    Raises:
        ValueError: there is no such task.
    """
    from kvision.train.classify_recipe import ClassifyRecipe
    from kvision.train.detect_recipe import DetectRecipe

    classes: dict[str, type[Recipe]] = {
        one.task: one for one in (DetectRecipe, ClassifyRecipe)
    }
    if task not in classes:
        raise ValueError(f"No task {task!r}. There are: {', '.join(classes)}")
    return classes[task]
