"""A run that is ready to train: begun anew, or found where it stopped."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kvision.models import Detector
from kvision.train import checkpoints
from kvision.train.best import Best
from kvision.train.build import build_model, check_monitor
from kvision.train.pictures import draw_training
from kvision.train.position import Position
from kvision.train.recipes import DetectRecipe
from kvision.train.run_folder import make_folder, name_of_data, read_recipe
from kvision.train.sources import Sources, find_sources
from kvision.train.state import restore

__all__ = ["Run", "begin", "go_on", "identity"]


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
    recipe: DetectRecipe
    sources: Sources
    train_set: Any
    val_set: Any
    model: Detector
    position: Position
    best: Best
    seconds_before: float = 0.0
    damaged: tuple[str, ...] = ()

    def image_ids(self, epoch: int, step: int) -> list[int]:
        """Return the images of a training batch, by making it again."""
        _, targets = next(iter(self.sources.training(epoch, step).take(1)))
        return [int(image_id) for image_id in targets["image_ids"]]


def begin(recipe: DetectRecipe, runs: Path, name: str | None) -> Run:
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
    sources = find_sources(recipe)
    train_set = sources.training()
    val_set = sources.validation(train_set.class_names)
    steps = train_set.steps_per_epoch
    recipe = recipe.resolved(steps, val_set is not None)
    model = build_model(recipe, train_set.class_names, steps)
    check_monitor(recipe, model, val_set is not None)
    folder = make_folder(runs, name or name_of_data(recipe.data))
    draw_training(train_set, model.class_names, folder / "train_images.jpg")
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
    sources = find_sources(recipe)
    train_set = sources.training(state["epoch"], state["step"])
    _refuse_other_data(identity(train_set), state["data"])
    steps = train_set.steps_per_epoch
    # The weights of the backbone need not be there any more.
    model = build_model(recipe, train_set.class_names, steps, load_weights=False)
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


def identity(dataset: Any) -> dict[str, Any]:
    """Describe training data so that other data is noticed.

    Args:
        dataset: the training set.

    Returns:
        Plain values.
    """
    ids = np.asarray(dataset.image_ids, np.int64)
    return {
        "class_names": list(dataset.class_names),
        "num_images": len(ids),
        "image_ids": zlib.crc32(ids.tobytes()),
    }


def _seed(recipe: DetectRecipe) -> None:
    import tensorflow as tf

    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and not tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def _refuse_other_data(here: dict[str, Any], then: dict[str, Any]) -> None:
    for name, value in then.items():
        if here[name] != value:
            raise ValueError(
                "The training data is not what the run was begun with, so it cannot go "
                f"on: {name} was {value} and is {here[name]}"
            )


def _refuse_finished(folder: Path, recipe: DetectRecipe, state: dict[str, Any]) -> None:
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
