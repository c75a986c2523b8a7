"""From a recipe to a compiled detector."""

from typing import Any

import keras

from kvision.evaluation.coco import figure_names
from kvision.models import Detector, faster_rcnn, mask_rcnn
from kvision.train.optimizers import make_optimizer
from kvision.train.recipes import DetectRecipe
from kvision.train.schedules import WarmupCosine, WarmupSteps
from kvision.train.settings import unknown

__all__ = ["build_model", "check_monitor", "make_schedule"]


def build_model(
    recipe: DetectRecipe,
    class_names: list[str],
    steps_per_epoch: int,
    load_weights: bool = True,
) -> Detector:
    """Build and compile the detector of a recipe.

    Args:
        recipe: the recipe, resolved.
        class_names: names of the classes.
        steps_per_epoch: batches of the training data.
        load_weights: whether to load the weights of the backbone; not needed where
            those of a checkpoint follow.

    Returns:
        The detector, its optimizer built.
    """
    builder = mask_rcnn if recipe.model == "mask_rcnn" else faster_rcnn
    model = builder(
        recipe.backbone,
        class_names=class_names,
        image_size=recipe.image_size,
        weights=recipe.weights if load_weights else None,
        resize=recipe.resize,
        frozen_stages=recipe.frozen_stages,
        freeze_batch_norm=recipe.freeze_batch_norm,
        dtype=recipe.dtype,
        **recipe.arguments,
    )
    optimizer = make_optimizer(
        recipe.optimizer,
        make_schedule(recipe, steps_per_epoch),
        model.trainable_variables,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        clipnorm=recipe.clipnorm,
        ema=recipe.ema,
        accumulate=recipe.accumulate,
    )
    model.compile(optimizer, jit_compile=recipe.jit_compile)
    return model


def make_schedule(
    recipe: DetectRecipe, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Make the learning rate of a recipe, a function of the step.

    Args:
        recipe: the recipe, resolved.
        steps_per_epoch: batches of the training data.

    Returns:
        The schedule.
    """
    steps = recipe.epochs * steps_per_epoch
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


def check_monitor(recipe: DetectRecipe, model: Detector, has_validation: bool) -> None:
    """Refuse to monitor a figure that will not be there.

    Args:
        recipe: the recipe, resolved.
        model: the detector, compiled.
        has_validation: whether there is data to validate on.

    Raises:
        ValueError: with the names that are there.
    """
    known = [metric.name for metric in model.metrics]
    if has_validation:
        losses = known if recipe.validation_loss else []
        scores = figure_names(recipe.model == "mask_rcnn", model.max_detections)
        known = [*known, *(f"val_{name}" for name in [*losses, *scores])]
    if recipe.monitor not in known:
        raise unknown(str(recipe.monitor), known, "figure to monitor")
