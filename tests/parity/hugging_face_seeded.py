"""Weights of Transformers' models from the names that its files have."""

import numpy as np

from tests.parity.torch_seeded import tensor_for

_TOKENS = ("_token", "_tokens", "position_embeddings")
# Large, so that attention is far from even.
_GAIN = {"query": 1.7, "key": 1.7}


def weights_for(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make one tensor.

    Args:
        name: that of the file, such as "vit.layernorm.bias".
        shape: torch's.

    Returns:
        float32 array of that shape.
    """
    return tensor_for(name, shape, _TOKENS, _GAIN)
