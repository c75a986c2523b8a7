"""Weights of timm's transformers from their names, so that none need be stored.

As in `seeded.py`, from which the numbers come: a pure function of name and shape, which
the recorder (torch) and the tests (Keras) both call.
"""

import math

import numpy as np

from tests.parity.seeded import uniform

# Tokens and positions as large as the patches they are put beside.
_TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed", "latent")

# Standard deviation of weights times sqrt(fan in), by the end of the name; else 1. What
# is normalised after a convolution is small, so that epsilon 1e-6 in place of 1e-5
# moves it by more than the tolerance. Queries and keys are large, so that attention is
# far from even.
_GAIN = {
    "patch_embeds.0.proj": 0.03,
    "patch_embeds.1.proj": 0.01,
    "patch_embeds.2.proj": 0.01,
    "patch_embeds.3.proj": 0.01,
    "attn.sr": 0.05,
    "attn.qkv": 1.7,
    "attn.q": 1.7,
    "attn.kv": 1.7,
    "attn_pool.q": 1.7,
    "attn_pool.kv": 1.7,
}


def weights_for(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make one tensor of a timm model.

    Args:
        name: timm's, such as "blocks.0.attn.qkv.weight".
        shape: torch's.

    Returns:
        float32 array of that shape.
    """
    module, _, kind = name.rpartition(".")
    if name.endswith(_TOKENS):
        return uniform(name, shape, -1, 1)
    gain = next((g for end, g in _GAIN.items() if module.endswith(end)), 1.0)
    if kind == "bias":
        return uniform(name, shape, -0.2 * gain, 0.2 * gain)
    if len(shape) == 1:  # scales of normalisations and of branches
        return uniform(name, shape, 0.7, 1.3)
    limit = gain * math.sqrt(3.0 / math.prod(shape[1:]))
    return uniform(name, shape, -limit, limit)
