"""Text files that a kill at any moment leaves whole: the old content or the new."""

from pathlib import Path

from kvision.weights.replacing import replacing

__all__ = ["write_text"]


def write_text(path: Path, text: str) -> None:
    """Write a whole text file; see `kvision.weights.replacing`."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
