"""Models that are too large for a format: refused before anything is converted."""

import math
from typing import Any

__all__ = ["check_size", "num_bytes"]

# Protocol buffers, in which TensorFlow hands graphs with constants on, and flatbuffers
# count bytes in 31 bits.
_MAX_BYTES = 2**31 - 1


def num_bytes(model: Any) -> int:
    """Count the bytes of a model's weights as float32.

    Args:
        model: what has `variables`.

    Returns:
        4 bytes for each number.
    """
    return 4 * sum(math.prod(variable.shape) for variable in model.variables)


def check_size(model: Any, form: str) -> None:
    """Refuse a model whose weights a format cannot hold.

    Args:
        model: what has `variables`.
        form: name of the format.

    Raises:
        ValueError: they are beyond its limit.
    """
    size = num_bytes(model)
    if size > _MAX_BYTES:
        raise ValueError(
            f"The weights are {size / 1e9:.2f} GB as float32, and {form} files end at "
            f"{(_MAX_BYTES + 1) / 1e9:.2f} GB; fewer bits do not help, since the file "
            "of float32 comes first. Export a SavedModel, which has no such limit, or "
            "a smaller variant of the model."
        )
