"""Weights of Transformers' models from the names that its files have.

As in `seeded.py`, from which the numbers come: a pure function of name and shape, which
the recorder (torch) and the tests (Keras) both call.
"""

import math

import numpy as np

from tests.parity.seeded import uniform

# Tokens and positions as large as the patches they are put beside.
_TOKENS = ("_token", "_tokens", "position_embeddings")
# Standard deviation of weights times sqrt(fan in): large, so that attention is far from
# even.
_GAIN = {"query": 1.7, "key": 1.7}


def weights_for(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make one tensor.

    Args:
        name: that of the file, such as "vit.layernorm.bias".
        shape: torch's.

    Returns:
        float32 array of that shape.
    """
    module, _, kind = name.rpartition(".")
    if name.endswith(_TOKENS):
        return uniform(name, shape, -1, 1)
    if kind == "bias":
        return uniform(name, shape, -0.2, 0.2)
    if len(shape) == 1:  # scales of normalisations and of branches
        return uniform(name, shape, 0.7, 1.3)
    gain = _GAIN.get(module.rpartition(".")[2], 1.0)
    limit = gain * math.sqrt(3.0 / math.prod(shape[1:]))
    return uniform(name, shape, -limit, limit)
