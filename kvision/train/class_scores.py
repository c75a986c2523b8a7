"""Scores of a classifier on a validation set, for the logs of an epoch."""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kvision.evaluation.classification import classification_scores

__all__ = ["ClassScores", "figure_names", "predictions"]

# More classes than this get no confusion matrix in best.json.
_MOST_CLASSES = 100


class ClassScores(keras.callbacks.Callback):
    """Scores the model on a dataset at the end of each epoch, in one pass.

    Args:
        dataset: images (B, H, W, C) and labels (B,), each image once.
        class_names: names of the classes.

    Attributes:
        scores: the last result of `kvision.evaluation.classification_scores`, without
            intervals.
    """

    def __init__(self, dataset: Any, class_names: list[str]) -> None:
        super().__init__()
        self.dataset = dataset
        self.class_names = class_names
        self.scores: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the figures of this epoch into its logs."""
        logits, labels = predictions(self.model, self.dataset)
        scores = classification_scores(
            logits, labels, self.class_names, num_resamples=0
        )
        del scores["intervals"]
        if len(self.class_names) > _MOST_CLASSES:
            del scores["confusion"]
        self.scores = scores
        if logs is not None:
            names = figure_names(len(self.class_names))
            values = {name: scores[name.removeprefix("val_")] for name in names}
            logs.update({n: math.nan if v is None else v for n, v in values.items()})


def figure_names(num_classes: int) -> list[str]:
    """Return the names of the figures in the logs.

    Args:
        num_classes: K.

    Returns:
        "val_loss" (mean cross-entropy), "val_accuracy", ...
    """
    top5 = ["top5_accuracy"] if num_classes > 5 else []
    figures = ["loss", "accuracy", *top5, "balanced_accuracy", "f1", "auc"]
    return [f"val_{name}" for name in figures]


def predictions(model: keras.Model, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Run a classifier over a dataset.

    Args:
        model: images to logits (B, K).
        dataset: images (B, H, W, C) and labels (B,).

    Returns:
        Logits (N, K) float32 and labels (N,).
    """
    pairs = list(_batches(model, dataset))
    if not pairs:
        raise ValueError("The dataset has no images to score")
    logits, labels = zip(*pairs, strict=True)
    return np.concatenate(logits), np.concatenate(labels)


def _batches(
    model: keras.Model, dataset: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run the model on batches of one shape: another would be traced anew."""
    rows = 0
    for images, labels in dataset:
        images = np.asarray(images)
        rows = max(rows, len(images))
        filling = np.zeros((rows - len(images), *images.shape[1:]), images.dtype)
        batch = np.concatenate([images, filling]) if len(filling) else images
        yield (
            np.asarray(model.predict_on_batch(batch))[: len(images)],
            np.asarray(labels),
        )
