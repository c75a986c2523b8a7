"""The task of detecting: data, model, scores and pictures of a run."""

import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kvision.evaluation.coco import figure_names as coco_figure_names
from kvision.models import Detector, faster_rcnn, mask_rcnn
from kvision.predict import Detections, from_outputs, from_targets
from kvision.train.build import make_schedule
from kvision.train.coco_metrics import COCOMetrics
from kvision.train.detect_recipe import DetectRecipe
from kvision.train.detect_sources import Sources, find_sources
from kvision.train.optimizers import make_optimizer
from kvision.viz import mosaic, save_picture, side_by_side

__all__ = [
    "build_model",
    "draw_training",
    "draw_validation",
    "evaluates_losses",
    "figure_names",
    "find_sources",
    "identity",
    "image_ids",
    "make_scorer",
    "product_of",
]

# More classes than this get no column each in results.csv.
_MOST_COLUMNS = 30
_TILES = 16
_TILE = 384  # pixels


def build_model(
    recipe: DetectRecipe, train_set: Any, load_weights: bool = True
) -> Detector:
    """Build and compile the detector of a recipe.

    Args:
        recipe: the recipe, resolved.
        train_set: the training set.
        load_weights: whether to load the weights of the backbone; not needed where
            those of a checkpoint follow.

    Returns:
        The detector, its optimizer built.
    """
    builder = mask_rcnn if recipe.model == "mask_rcnn" else faster_rcnn
    model = builder(
        recipe.backbone,
        class_names=train_set.class_names,
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
        make_schedule(recipe, train_set.steps_per_epoch),
        model.trainable_variables,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        clipnorm=recipe.clipnorm,
        ema=recipe.ema,
        accumulate=recipe.accumulate,
    )
    model.compile(optimizer, jit_compile=recipe.jit_compile)
    return model


def evaluates_losses(recipe: DetectRecipe) -> bool:
    """Say whether a validation runs `Model.evaluate` for the losses too."""
    return recipe.validation_loss


def product_of(model: Detector) -> Detector:
    """Return what is scored, drawn and saved: the model that is trained."""
    return model


def figure_names(recipe: DetectRecipe, model: Detector) -> list[str]:
    """Return the figures that a validation adds to an epoch's logs."""
    losses = list(model.get_metrics_result()) if recipe.validation_loss else []
    scores = coco_figure_names(recipe.model == "mask_rcnn", model.max_detections)
    return [f"val_{name}" for name in [*losses, *scores]]


def make_scorer(
    recipe: DetectRecipe, sources: Sources, model: Detector, dataset: Any
) -> COCOMetrics | None:
    """Make what scores the model, or None without data for it.

    Args:
        recipe: the recipe, resolved.
        sources: where the data is.
        model: the detector.
        dataset: the validation set.

    Returns:
        The callback.
    """
    if sources.val is None:
        return None
    return COCOMetrics(
        dataset,
        sources.val[0],
        max_detections=model.max_detections,
        per_class=1 < len(model.class_names) <= _MOST_COLUMNS,
    )


def image_ids(sources: Any, epoch: int, step: int) -> list[int]:
    """Return the ids of the images of a training batch, by making it again."""
    _, targets = next(iter(sources.training(epoch, step)))
    return [int(image_id) for image_id in targets["image_ids"]]


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


def draw_training(dataset: Any, class_names: list[str], path: Path) -> None:
    """Draw the first training images as the model sees them, with their objects.

    Args:
        dataset: the training set.
        class_names: names of the classes.
        path: the picture to write.
    """
    tiles = []
    for images, targets in dataset:
        images, targets = _as_numpy(images, targets)
        for row in range(len(images)):
            truth = from_targets(images, targets, row, class_names)
            tiles.append(truth.draw(show_scores=False))
        if len(tiles) >= _TILES:
            break
    save_picture(mosaic(tiles[:_TILES], tile_size=(_TILE, _TILE)), path)


def draw_validation(
    model: Any,
    dataset: Any,
    folder: Path,
    number: int,
    score_threshold: float = 0.5,
) -> None:
    """Draw ground truth beside predictions.

    Args:
        model: a detector.
        dataset: the validation set.
        folder: where to write `IMAGE_ID.jpg`.
        number: how many images, the first of the set.
        score_threshold: the least score that is drawn.
    """
    for truth, found, image_id in islice(
        _truth_and_found(model, dataset, score_threshold), number
    ):
        picture = side_by_side(truth.draw(show_scores=False), found.draw())
        save_picture(picture, folder / f"{image_id}.jpg")


def _truth_and_found(model: Any, dataset: Any, score_threshold: float) -> Any:
    """Yield (ground truth, detections, image id) in pixels of the model's input."""
    names = model.class_names
    for images, targets in dataset:
        images, targets = _as_numpy(images, targets)
        outputs = {
            name: keras.ops.convert_to_numpy(value)
            for name, value in model.predict_on_batch(images).items()
        }
        for row, image_id in enumerate(targets["image_ids"]):
            truth = from_targets(images, targets, row, names)
            found: Detections = from_outputs(
                outputs,
                row,
                names,
                truth.image_size,
                score_threshold=score_threshold,
                source=truth.source,
            )
            yield truth, found, int(image_id)


def _as_numpy(images: Any, targets: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return np.asarray(images), {name: np.asarray(v) for name, v in targets.items()}
