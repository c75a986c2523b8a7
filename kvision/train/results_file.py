"""`results.csv` and its curves: a line for each epoch that is over."""

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from kvision.train.files import write_text
from kvision.train.pictures import draw_curves

__all__ = ["ResultsFile"]

_SECONDS_BETWEEN_CURVES = 60


class ResultsFile(keras.callbacks.Callback):
    """Writes an epoch's losses and scores as a line of a csv file.

    The file is written as a whole and renamed, so that a kill leaves every line that
    was there, and a column that comes late gets its place.

    Args:
        path: the file; its lines before `first_epoch` are kept.
        clock: seconds since the run began.
        first_epoch: the first epoch of this process, counted from 0.

    Attributes:
        rows: the lines, oldest first; values as text.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float], first_epoch: int = 0
    ) -> None:
        super().__init__()
        self.path = path
        self.clock = clock
        self.rows = [row for row in _read(path) if int(row["epoch"]) < first_epoch]
        self._drawn_at = time.monotonic()
        self._can_draw = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the line of an epoch."""
        optimizer = self.model.optimizer
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": int(optimizer.iterations),
            "seconds": f"{self.clock():.1f}",
            "learning_rate": f"{float(optimizer.learning_rate):.6g}",
        }
        # NaN stands for what was not measured in this epoch.
        row |= {name: f"{v:.6g}" for name, v in (logs or {}).items() if v == v}
        self.rows.append(row)
        write_text(self.path, self._text())
        if time.monotonic() > self._drawn_at + _SECONDS_BETWEEN_CURVES:
            self.draw()

    def draw(self) -> None:
        """Draw the curves, if there are lines and matplotlib is installed."""
        if self.rows and self._can_draw:
            self._can_draw = draw_curves(self.path, self.path.with_name("curves.png"))
            self._drawn_at = time.monotonic()

    def _text(self) -> str:
        columns = dict.fromkeys(name for row in self.rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: text for name, text in row.items() if text} for row in rows]
