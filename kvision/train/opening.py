"""A run that is ready to train: begun anew, or found where it stopped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from kvision.train import checkpoints
from kvision.train.best import Best
from kvision.train.build import check_monitor
from kvision.train.position import Position
from kvision.train.recipe import Recipe
from kvision.train.run_folder import make_folder, name_of_data, read_recipe
from kvision.train.state import restore
from kvision.train.task import Sources, Task, task_of

__all__ = ["Run", "begin", "go_on"]


@dataclass
class Run:
    """A run that is ready to train.

    Attributes:
        folder: the run folder.
        recipe: its recipe, resolved.
        sources: where its data is.
        train_set: endless, from `position` on.
        val_set: each image once, or None.
        model: compiled.
        position: the next batch.
        best: the best epoch so far.
        seconds_before: time of the run before this process.
        damaged: what was wrong with checkpoints that could not be used.
    """

    folder: Path
    recipe: Recipe
    sources: Sources
    train_set: Any
    val_set: Any
    model: keras.Model
    position: Position
    best: Best
    seconds_before: float = 0.0
    damaged: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """The functions of its task."""
        return task_of(self.recipe)

    def image_ids(self, epoch: int, step: int) -> list[Any]:
        """Name the images of a training batch."""
        return self.task.image_ids(self.sources, epoch, step)


def begin(recipe: Recipe, runs: Path, name: str | None) -> Run:
    """Read the data and build the model; only then make the folder.

    Args:
        recipe: how to train.
        runs: where the run folders are.
        name: name of the folder; by default that of the data.

    Returns:
        The run.

    Raises:
        ValueError: the recipe or the data has a fault.
    """
    _seed(recipe)
    task = task_of(recipe)
    sources = task.find_sources(recipe)
    train_set = sources.training()
    val_set = sources.validation(train_set.class_names)
    steps = train_set.steps_per_epoch
    recipe = recipe.resolved(steps, val_set is not None)
    model = task.build_model(recipe, train_set)
    figures = task.figure_names(recipe, model) if val_set is not None else []
    check_monitor(recipe, model, figures)
    folder = make_folder(runs, name or name_of_data(recipe.data))
    task.draw_training(train_set, train_set.class_names, folder / "train_images.jpg")
    return Run(
        folder=folder,
        recipe=recipe,
        sources=sources,
        train_set=train_set,
        val_set=val_set,
        model=model,
        position=Position(steps),
        best=Best(str(recipe.monitor)),
    )


def go_on(folder: Path, changes: "dict[str, Any] | list[str]") -> Run:
    """Build a run anew and put its newest whole checkpoint into it.

    Args:
        folder: the run folder.
        changes: settings to change.

    Returns:
        The run.

    Raises:
        ValueError: there is no such run, it is finished, its data has changed, or none
            of its checkpoints is whole.
    """
    recipe = read_recipe(folder, changes)
    checkpoint = checkpoints.read_newest(folder / "checkpoints")
    state = checkpoint.state
    _refuse_finished(folder, recipe, state)
    _seed(recipe)
    task = task_of(recipe)
    sources = task.find_sources(recipe)
    train_set = sources.training(state["epoch"], state["step"])
    _refuse_other_data(task.identity(train_set), state["data"])
    steps = train_set.steps_per_epoch
    # The weights that it began with need not be there any more.
    model = task.build_model(recipe, train_set, load_weights=False)
    restore(model, checkpoint.arrays)
    position = Position(steps, state["epoch"], state["step"])
    position.set_model(model)
    position.keep_means()
    return Run(
        folder=folder,
        recipe=recipe,
        sources=sources,
        train_set=train_set,
        val_set=sources.validation(train_set.class_names),
        model=model,
        position=position,
        best=Best(**state["best"]),
        seconds_before=state["seconds"],
        damaged=checkpoint.damaged,
    )


def _seed(recipe: Recipe) -> None:
    import tensorflow as tf

    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and not tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()
        # TensorFlow adds three or more gradients beginning with the first whose memory
        # nothing else holds. Which that is depends on the threads once the optimiser of
        # its graphs has brought a term that shares its memory to the front.
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def _refuse_other_data(here: dict[str, Any], then: dict[str, Any]) -> None:
    for name, value in then.items():
        if here[name] != value:
            raise ValueError(
                "The training data is not what the run was begun with, so it cannot go "
                f"on: {name} was {value} and is {here[name]}"
            )


def _refuse_finished(folder: Path, recipe: Recipe, state: dict[str, Any]) -> None:
    if state["epoch"] >= recipe.epochs:
        raise ValueError(
            f"{folder} is finished: {state['epoch']} of {recipe.epochs} epochs are "
            f"done. To train longer: --resume {folder} epochs={2 * recipe.epochs}"
        )
    waited = state["best"]["waited"]
    if recipe.patience is not None and waited >= recipe.patience:
        raise ValueError(
            f"{folder} has stopped: no better epoch in {waited} validations. To go on "
            f"nevertheless: --resume {folder} patience={2 * recipe.patience}"
        )
