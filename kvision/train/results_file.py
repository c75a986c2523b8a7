"""`results.csv`: a line for each epoch that is over."""

import csv
import io
from pathlib import Path
from typing import Any

import keras

from kvision.train.files import write_text

__all__ = ["ResultsFile"]

_FIRST = ("epoch", "step", "seconds", "learning_rate")


class ResultsFile(keras.callbacks.Callback):
    """Writes an epoch's losses and scores as a line of a csv file.

    The file is written as a whole and renamed, so that a kill leaves every line that
    was there, and a column that comes late gets its place.

    Args:
        path: the file; its lines before `first_epoch` are kept.
        first_epoch: the first epoch of this process, counted from 0.

    Attributes:
        rows: the lines, oldest first; values as text.
    """

    def __init__(self, path: Path, first_epoch: int = 0) -> None:
        super().__init__()
        self.path = path
        self.rows = [row for row in _read(path) if int(row["epoch"]) < first_epoch]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the line of an epoch."""
        # NaN stands for what was not measured in this epoch.
        figures = {k: f"{v:.6g}" for k, v in (logs or {}).items() if v == v}
        self.rows.append({"epoch": str(epoch), **figures})
        names = dict.fromkeys([*_FIRST, *(name for row in self.rows for name in row)])
        used = [name for name in names if any(name in row for row in self.rows)]
        text = io.StringIO()
        writer = csv.DictWriter(text, used, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: text for name, text in row.items() if text} for row in rows]
