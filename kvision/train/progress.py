"""What a run tells: a bar on a terminal, now and then a line elsewhere."""

import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from kvision.train.position import Position

__all__ = ["ProgressReport"]

Logs = dict[str, Any] | None

_SECONDS_BETWEEN_LINES = 30.0
# What an epoch's line says, if it is there.
_FIGURES = (
    "loss",
    "val_loss",
    "val_accuracy",
    "val_top5_accuracy",
    "val_box_ap",
    "val_box_ap50",
    "val_mask_ap",
    "val_mask_ap50",
)


class ProgressReport(keras.callbacks.Callback):
    """Reports steps and epochs.

    Args:
        console: where to; what is no terminal gets lines instead of a bar.
        position: the run's position.
        epochs: epochs of the run.
        seconds_between_lines: where there is no terminal.
    """

    def __init__(
        self,
        console: Console,
        position: Position,
        epochs: int,
        seconds_between_lines: float = _SECONDS_BETWEEN_LINES,
    ) -> None:
        super().__init__()
        self.console = console
        self.position = position
        self.epochs = epochs
        self.seconds_between_lines = seconds_between_lines
        self._bar: Progress | None = None
        self._task: Any = None
        self._said_at = self._began_at = time.monotonic()
        self._seen_steps = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Say why nothing moves yet."""
        self._began_at = time.monotonic()
        self._say("Tracing the first step, which takes a while ...")

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Show a bar."""
        if not self.console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task(
            f"epoch {epoch + 1}/{self.epochs}",
            total=self.position.steps_per_epoch,
            completed=self.position.step,
        )
        self._bar.start()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Move the bar, or write a line."""
        self._seen_steps += 1
        logs = logs or {}
        epoch, step = self.position.epoch + 1, self.position.step
        if self._bar is not None:
            text = f"epoch {epoch}/{self.epochs}  loss {logs.get('loss', 0.0):.3f}"
            self._bar.update(self._task, completed=step, description=text)
        elif self._seen_steps == 1 or self._is_time():
            self._say(
                f"epoch {epoch}/{self.epochs}  step {step}/"
                f"{self.position.steps_per_epoch}  loss {logs.get('loss', 0.0):.3f}"
            )

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write the line of an epoch."""
        self.close()
        logs = logs or {}
        figures = [
            f"{name.removeprefix('val_') if 'ap' in name else name} {logs[name]:.3f}"
            for name in _FIGURES
            if logs.get(name, float("nan")) == logs.get(name)
        ]
        seconds = time.monotonic() - self._began_at
        self._say(
            f"epoch {epoch + 1}/{self.epochs}  " + "  ".join([*figures, _span(seconds)])
        )

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _is_time(self) -> bool:
        return time.monotonic() - self._said_at > self.seconds_between_lines

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._said_at = time.monotonic()


def _span(seconds: float) -> str:
    """Write a time as people do: 42 s, 3:05 min, 1:02:03 h."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}:{rest:02d} min"
    return f"{hours}:{minutes:02d}:{rest:02d} h"
