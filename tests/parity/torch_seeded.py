"""Weights of transformers of PyTorch from their names, so that none need be stored.

As in `seeded.py`, from which the numbers come: a pure function of name and shape, which
the recorders (torch) and the tests (Keras) both call.
"""

import math
from collections.abc import Mapping

import numpy as np

from tests.parity.seeded import uniform


def tensor_for(
    name: str,
    shape: tuple[int, ...],
    tokens: tuple[str, ...],
    gains: Mapping[str, float],
) -> np.ndarray:
    """Make one tensor.

    Args:
        name: that of the project.
        shape: torch's.
        tokens: how the names end of learned tokens and positions, which are as large as
            the patches they are put beside.
        gains: standard deviation of weights times sqrt(fan in), by the end of the name
            of the module; else 1.

    Returns:
        float32 array of that shape.
    """
    module, _, kind = name.rpartition(".")
    if name.endswith(tokens):
        return uniform(name, shape, -1, 1)
    gain = next((g for end, g in gains.items() if module.endswith(end)), 1.0)
    if kind == "bias":
        return uniform(name, shape, -0.2 * gain, 0.2 * gain)
    if len(shape) == 1:  # scales of normalisations and of branches
        return uniform(name, shape, 0.7, 1.3)
    limit = gain * math.sqrt(3.0 / math.prod(shape[1:]))
    return uniform(name, shape, -limit, limit)
