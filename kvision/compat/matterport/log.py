"""`log`: how matterport's scripts print a line, and what an array holds."""

import numpy as np

__all__ = ["log"]


def log(text: str, array: np.ndarray | None = None) -> None:
    """Print a line.

    Args:
        text: what to say.
        array: whose shape, range and dtype to say too.
    """
    if array is not None:
        low, high = (array.min(), array.max()) if array.size else ("", "")
        text = f"{text:25}shape: {array.shape!s:20}  min: {low!s:10}  max: {high!s:10}"
        text += f"  {array.dtype}"
    print(text)
