"""Stops a run whose loss is no longer a number, and says which images it was."""

import math
from collections.abc import Callable
from typing import Any

import keras

from kvision.train.position import Position

__all__ = ["FiniteLoss", "NonFiniteLossError"]


class NonFiniteLossError(ValueError):
    """The loss or a weight became NaN or infinite.

    Attributes:
        epoch: the epoch, counted from 0.
        step: the step of it, counted from 0.
        image_ids: images of its batch.
    """

    def __init__(
        self, message: str, epoch: int, step: int, image_ids: list[Any]
    ) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.image_ids = image_ids


class FiniteLoss(keras.callbacks.Callback):
    """Look at each step's loss, which `fit` hands to callbacks anyway.

    The image ids are not kept during training: the batch of a step is made again when
    it is asked for.

    Args:
        position: the run's position, before this in the list of callbacks.
        image_ids_of: function from (epoch, step) to the image ids of that batch.
    """

    def __init__(
        self, position: Position, image_ids_of: Callable[[int, int], list[Any]]
    ) -> None:
        super().__init__()
        self.position = position
        self.image_ids_of = image_ids_of

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Stop if the mean loss of the epoch so far is not finite."""
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.stop(logs or {})

    def stop(self, logs: dict[str, Any]) -> None:
        """Raise the error for the step that was just done.

        Args:
            logs: losses by name.

        Raises:
            NonFiniteLossError: always.
        """
        epoch, step = self.position.epoch, self.position.step - 1
        parts = [n for n, v in logs.items() if n != "loss" and not math.isfinite(v)]
        what = ", ".join(parts) or "the weights"
        ids = self.image_ids_of(epoch, step)
        message = (
            f"Training became not finite ({what}) in epoch {epoch + 1}, step "
            f"{step + 1}. Images of that batch: {ids}."
        )
        if step:
            # Its gradients may have spoilt the weights although its loss was finite.
            before = self.image_ids_of(epoch, step - 1)
            message += f" Of the one before: {before}."
        message += (
            " Lower learning_rate, lengthen warmup_steps or set clipnorm=10; if it is "
            "always the same images, look at them."
        )
        raise NonFiniteLossError(message, epoch, step, ids)
