"""The picture of how the losses and scores of a run went."""

import logging
from pathlib import Path

from kvision.viz import plot_history

__all__ = ["draw_curves"]

_log = logging.getLogger("kvision.train")


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
