"""Weights of timm's transformers from their names."""

import numpy as np

from tests.parity.torch_seeded import tensor_for

_TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed", "latent")

# What is normalised after a convolution is small, so that epsilon 1e-6 in place of 1e-5
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
    return tensor_for(name, shape, _TOKENS, _GAIN)
