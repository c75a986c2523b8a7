"""Pictures of a run: what it trains on, what it finds, how its losses went."""

import logging
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kvision.predict import Detections, from_outputs, from_targets
from kvision.viz import mosaic, plot_history, save_picture, side_by_side

__all__ = ["draw_curves", "draw_training", "draw_validation"]

_log = logging.getLogger("kvision.train")

_TILES = 16
_TILE = 384  # pixels


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


def draw_curves(results: Path, path: Path) -> bool:
    """Draw the losses and scores of a `results.csv`.

    Args:
        results: the csv file.
        path: the picture to write.

    Returns:
        Whether it was written; without matplotlib it is not, and the log says so.
    """
    try:
        plot_history(results, path)
    except ImportError as error:
        _log.warning("No %s: %s", path.name, error)
        return False
    return True


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
