"""When checkpoints of a run are written, and what stands in them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kvision.train import checkpoints
from kvision.train.best import Best
from kvision.train.finite import FiniteLoss
from kvision.train.interrupts import Interrupts
from kvision.train.position import Position
from kvision.train.state import capture

__all__ = ["Checkpointing"]

Logs = dict[str, Any] | None


class Checkpointing(keras.callbacks.Callback):
    """Writes a checkpoint after each epoch and each so many minutes within one.

    It also ends a run: when a signal came, after writing one, and when its time is up.
    Last in the list of callbacks, since others finish an epoch's work before it.

    Args:
        folder: where the checkpoints go.
        position: the run's position.
        best: the best epoch so far.
        finite: what to do when a weight is not finite; such a state is never written.
        interrupts: signals that came.
        data: what identifies the training data.
        minutes: time between checkpoints within an epoch.
        max_minutes: when to stop; None for never.
        clock: seconds since the run began, those before a resumption included.
    """

    def __init__(
        self,
        folder: Path,
        position: Position,
        best: Best,
        finite: FiniteLoss,
        interrupts: Interrupts,
        data: dict[str, Any],
        minutes: float,
        max_minutes: float | None,
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self.folder = folder
        self.position = position
        self.best = best
        self.finite = finite
        self.interrupts = interrupts
        self.data = data
        self.minutes = minutes
        self.clock = clock
        self.time_is_up = False
        self._is_written = True
        self._written_at = time.monotonic()
        self._stop_at = time.monotonic() + 60 * (max_minutes or float("inf"))

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Write, stop or go on."""
        self._is_written = False
        self.interrupts.check()
        now = time.monotonic()
        if now > self._stop_at:
            self.time_is_up = True
            self.model.stop_training = True
        elif now > self._written_at + 60 * self.minutes:
            self.write(self.position.epoch, self.position.step)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write what the next epoch begins with."""
        self.write(*self.position.next)
        self.interrupts.check()

    def write_interrupted(self) -> None:
        """Write where the run was interrupted, if that is not written yet."""
        if not self._is_written:
            self.write(self.position.epoch, self.position.step)

    def write(self, epoch: int, step: int) -> None:
        """Write a checkpoint.

        Args:
            epoch: of the next batch, counted from 0.
            step: of the next batch; the number of batches to leave to an epoch that is
                not yet validated.

        Raises:
            NonFiniteLossError: if a weight is not finite; the checkpoints there are
                stay.
        """
        self.position.keep_means()
        self.position.put_back_means()
        arrays = capture(self.model)
        if not _are_finite(arrays):
            self.finite.stop({})
        state = {
            "epoch": epoch,
            "step": step,
            "steps_per_epoch": self.position.steps_per_epoch,
            "best": self.best.to_dict(),
            "seconds": round(self.clock(), 1),
            "data": self.data,
        }
        checkpoints.write(self.folder, arrays, state)
        self._is_written = True
        self._written_at = time.monotonic()


def _are_finite(arrays: dict[str, np.ndarray]) -> bool:
    floats = (array for array in arrays.values() if array.dtype.kind == "f")
    return all(np.isfinite(array).all() for array in floats)
