"""From a recipe to what a model is compiled with."""

from typing import Any

import keras

from kvision.train.recipe import Recipe, num_updates
from kvision.train.schedules import WarmupCosine, WarmupSteps
from kvision.train.settings import unknown

__all__ = ["check_monitor", "has_accelerator", "make_schedule"]


def make_schedule(
    recipe: Recipe, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Make the learning rate of a recipe, a function of the changes of the weights.

    Args:
        recipe: the recipe, resolved.
        steps_per_epoch: batches of the training data.

    Returns:
        The schedule.
    """
    steps = num_updates(recipe, steps_per_epoch)
    settings: dict[str, Any] = {
        "peak": recipe.learning_rate,
        "warmup_steps": recipe.warmup_steps,
    }
    if recipe.schedule == "cosine":
        return WarmupCosine(num_steps=steps, **settings)
    shares = recipe.milestones if recipe.schedule == "step" else ()
    return WarmupSteps(
        milestones=[round(share * steps) for share in shares], **settings
    )


def check_monitor(recipe: Recipe, model: keras.Model, validation: list[str]) -> None:
    """Refuse to monitor a figure that will not be there.

    Args:
        recipe: the recipe, resolved.
        model: the model, compiled.
        validation: figures of a validation; none without data for it.

    Raises:
        ValueError: with the names that are there.
    """
    known = [*model.get_metrics_result(), *validation]
    if recipe.monitor not in known:
        raise unknown(str(recipe.monitor), known, "figure to monitor")


def has_accelerator() -> bool:
    """Say whether this machine has a GPU, for settings of "auto"."""
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))
