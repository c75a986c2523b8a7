"""Validation at the end of an epoch: losses, scores, the best model."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from kvision.train.averaging import averaged_weights
from kvision.train.best import Best
from kvision.train.files import write_text
from kvision.train.interrupts import Interrupts
from kvision.train.saving import save_model
from kvision.train.task import Scorer

__all__ = ["Validation"]

_SECONDS_BETWEEN_PICTURES = 60


class Validation(keras.callbacks.Callback):
    """Scores the model, keeps the best one, and stops when none comes any more.

    Where the optimizer averages the weights, the averages are scored, drawn and saved.

    Args:
        folder: the run folder.
        best: the best so far.
        metrics: scores the product, or None without validation data.
        product: the model to score, draw and save: that which is trained, or the
            student in it.
        draw: function `(product, dataset, folder, number)` that draws a validation.
        epochs: epochs of the run.
        every: epochs from one validation to the next; the last one always is.
        losses: whether to compute the losses too.
        patience: validations without a better one after which to stop; None for ever.
        num_pictures: pictures to draw of the best model.
        interrupts: may end a validation.
    """

    def __init__(
        self,
        folder: Path,
        best: Best,
        metrics: Scorer | None,
        product: keras.Model,
        draw: Callable[[Any, Any, Path, int], None],
        *,
        epochs: int,
        every: int = 1,
        losses: bool = True,
        patience: int | None = None,
        num_pictures: int = 8,
        interrupts: Interrupts,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.best = best
        self.metrics = metrics
        self.product = product
        self._draw = draw
        self.epochs = epochs
        self.every = every
        self.losses = losses
        self.patience = patience
        self.num_pictures = num_pictures
        self.interrupts = interrupts
        self.ran_out_of_patience = False
        self._drawn_at = -float("inf")

    @property
    def best_path(self) -> Path:
        """The best model."""
        return self.folder / "best.keras"

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that the classes of model and data agree before time is spent."""
        if self.metrics is not None:
            self.metrics.set_model(self.product)
            self.metrics.on_train_begin()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add this epoch's figures to its logs."""
        logs = {} if logs is None else logs
        ends = epoch + 1 == self.epochs or self.model.stop_training
        if self.metrics is not None and not ends and (epoch + 1) % self.every:
            return
        with averaged_weights(self.model):
            if self.metrics is not None:
                with self.interrupts.allowed():
                    self._score(self.metrics, epoch, logs)
            if self.best.update(epoch, logs):
                self._keep(epoch, logs)
        if self.patience is not None and self.best.waited >= self.patience:
            self.ran_out_of_patience = True
            self.model.stop_training = True

    def draw(self) -> None:
        """Draw the ground truth of the first images beside what the model finds."""
        if self.metrics is not None and self.num_pictures:
            folder = self.folder / "validation"
            self._draw(self.product, self.metrics.dataset, folder, self.num_pictures)
            self._drawn_at = time.monotonic()

    def _score(self, metrics: Scorer, epoch: int, logs: dict[str, Any]) -> None:
        if self.losses:
            losses = self.model.evaluate(metrics.dataset, verbose=0, return_dict=True)
            logs.update({f"val_{name}": value for name, value in losses.items()})
        metrics.on_epoch_end(epoch, logs)

    def _keep(self, epoch: int, logs: dict[str, Any]) -> None:
        save_model(self.product, self.best_path)
        scores = self.metrics.scores if self.metrics is not None else {}
        content = {"epoch": epoch, **logs, **scores}
        write_text(self.folder / "best.json", json.dumps(content, indent=1) + "\n")
        if time.monotonic() - self._drawn_at > _SECONDS_BETWEEN_PICTURES:
            with self.interrupts.allowed():
                self.draw()
