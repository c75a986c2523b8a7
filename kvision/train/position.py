"""Where training stands: the next batch, and the losses of its epoch so far."""

from typing import Any

import keras
import numpy as np

__all__ = ["Position"]

Logs = dict[str, Any] | None


class Position(keras.callbacks.Callback):
    """Counts epochs and steps for the other callbacks, from any step on.

    Keras begins an epoch at its first step only. This callback, first in the list,
    ends the epoch that was begun in the middle where it should end, and gives it back
    the losses of the steps before, so that its means are those of the whole epoch.

    Args:
        steps_per_epoch: batches of an epoch.
        epoch: the first epoch, counted from 0.
        step: the first step of it.

    Attributes:
        epoch: the epoch in work.
        step: batches of it that have been learned from.
    """

    def __init__(self, steps_per_epoch: int, epoch: int = 0, step: int = 0) -> None:
        super().__init__()
        self.steps_per_epoch = steps_per_epoch
        self.epoch = epoch
        self.step = step
        self._begun_at = step
        self._means: list[np.ndarray] = []
        self._validates = False

    @property
    def epoch_is_complete(self) -> bool:
        """Whether every batch of the epoch has been learned from."""
        return self.step >= self.steps_per_epoch

    @property
    def next(self) -> tuple[int, int]:
        """(epoch, step) of the next batch."""
        if self.epoch_is_complete:
            return self.epoch + 1, 0
        return self.epoch, self.step

    def keep_means(self) -> None:
        """Remember the losses so far, unless validation is using the metrics."""
        if not self._validates:
            variables = self.model.metrics_variables
            self._means = [np.array(variable) for variable in variables]

    def put_back_means(self) -> None:
        """Give the metrics the losses that were remembered."""
        pairs = zip(self.model.metrics_variables, self._means, strict=False)
        for variable, value in pairs:
            variable.assign(value)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Begin an epoch; Keras has reset the metrics just before."""
        self._validates = False
        if epoch == self.epoch and self._begun_at:
            self.put_back_means()
        else:
            self.epoch, self.step, self._begun_at = epoch, 0, 0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Count a step, and end an epoch that was begun in the middle."""
        self.step += 1
        if self._begun_at and self.epoch_is_complete:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Let Keras go on to the next epoch if only this one was to end."""
        self.keep_means()
        self._validates = True
        if self._begun_at and self.epoch_is_complete:
            self.model.stop_training = False
            self._begun_at = 0
