"""Scaled dot-product attention in steps, none of them of more than four dimensions.

Shapes: B batch, N queries, M keys, H heads, d = D / H dimensions a head.
"""

from typing import Any

import keras
from keras import ops

from kvision.ops.fusing import fused
from kvision.ops.ordering import wait_for
from kvision.ops.tracing import tracing_for_inference

__all__ = [
    "attention_scores",
    "kept_softmax",
    "merge_heads",
    "split_heads",
]

Tensor = Any


def split_heads(
    packed: Tensor, num_heads: int, parts: int, axis: int = 1
) -> list[Tensor]:
    """Take queries, keys and values, or some of them, out of one product.

    Args:
        packed: (B, N, parts * D) tensor; each part is head-major.
        num_heads: H.
        parts: how many tensors are packed.
        axis: of the heads, 1 or 0. Ahead of the samples the parts lie one after the
            other in memory and are not copied.

    Returns:
        `parts` tensors (B, H, N, d) or (H, B, N, d).
    """
    _, length, width = packed.shape
    head_dim = width // (parts * num_heads)
    # Not (B, N, 3, H, d): delegates of TFLite refuse five dimensions.
    heads = ops.reshape(packed, (-1, length, parts * num_heads, head_dim))
    heads = ops.transpose(heads, (0, 2, 1, 3) if axis else (2, 0, 1, 3))
    return [heads] if parts == 1 else list(ops.split(heads, parts, axis=axis))


def merge_heads(heads: Tensor, axis: int = 1) -> Tensor:
    """Lay the heads side by side.

    Args:
        heads: (B, H, N, d) or (H, B, N, d) tensor.
        axis: of the heads, 1 or 0.

    Returns:
        (B, N, H * d) tensor.
    """
    num_heads, (length, head_dim) = heads.shape[axis], heads.shape[2:]
    tokens = ops.transpose(heads, (0, 2, 1, 3) if axis else (1, 2, 0, 3))
    return ops.reshape(tokens, (-1, length, num_heads * head_dim))


def attention_scores(
    queries: Tensor, keys: Tensor, bias: Tensor | None = None, keep: Any = None
) -> Tensor:
    """Compute softmax(Q K^T / sqrt(d) + bias), the softmax in float32.

    Args:
        queries: (B, H, N, d) tensor; without `bias` and `keep` (H, B, N, d) as well.
        keys: (B, H, M, d) tensor.
        bias: tensor that broadcasts to (B, H, N, M), added before the softmax; large
            and negative where a key must not be seen.
        keep: (B, M) tensor in [0, 1]: how much of each key there is (`kept_softmax`).

    Returns:
        (B, H, N, M) tensor in [0, 1] of the dtype of `queries`.

    Source: Vaswani et al. 2017, Attention Is All You Need, equation 1.
    """
    # Scaling the queries is cheaper than scaling the products.
    queries = queries * ops.cast(queries.shape[-1] ** -0.5, queries.dtype)
    logits = ops.matmul(queries, ops.transpose(keys, (0, 1, 3, 2)))
    if tracing_for_inference() and bias is None and keep is None and keys.shape[2] > 1:
        return ops.softmax(logits)  # a kernel that is float32 inside
    logits = ops.cast(logits, "float32")
    if bias is not None:
        logits = logits + ops.cast(bias, "float32")
    if logits.shape[-1] == 1:
        scores = ops.exp(logits - logits)  # of a softmax here Keras would warn
    elif keep is not None:
        scores = kept_softmax(logits, keep)
    elif keras.backend.standardize_dtype(queries.dtype) != "float32":
        return _rounded_softmax(logits, queries.dtype)
    else:
        scores = ops.softmax(logits)
    return ops.cast(scores, queries.dtype)


def _rounded_softmax(logits: Tensor, dtype: Any) -> Tensor:
    """Round a float32 softmax, and take its gradient from what was rounded.

    The float32 scores, the largest tensor of a block, then need not be kept: a third of
    the memory of a ViT-B/16 in training.
    """

    @ops.custom_gradient
    def softmax(logits: Tensor) -> tuple[Tensor, Any]:
        scores = ops.cast(ops.softmax(logits), dtype)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> Tensor:
            upstream = args[0] if upstream is None else upstream
            change = _softmax_gradient(wait_for(scores, [upstream]), upstream)
            return ops.cast(change, logits.dtype)

        return scores, gradient

    return softmax(logits)


@fused
def _softmax_gradient(scores: Tensor, upstream: Tensor) -> Tensor:
    wide, upstream = ops.cast(scores, "float32"), ops.cast(upstream, "float32")
    weighted = wide * upstream
    # XLA makes vector instructions of products, not of sums along rows.
    ones = ops.ones((ops.shape(weighted)[-1], 1))
    change = weighted - wide * ops.matmul(weighted, ones)
    return ops.cast(change, scores.dtype)


def kept_softmax(logits: Tensor, keep: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Compute a softmax over keys that are there, not there, or partly there.

    With ones it is the softmax, up to `epsilon`; a key with 0 is seen by itself alone.
    The gradient to `keep` says how much a dropped token was missed.

    Args:
        logits: (B, H, N, N) float32 tensor.
        keep: (B, N) tensor in [0, 1].
        epsilon: spread over all keys, so that no row is empty.

    Returns:
        (B, H, N, N) float32 tensor.

    Source: Rao et al. 2021, DynamicViT, equations 10 and 11; the epsilon of
    raoyongming/DynamicViT, models/dyvit.py.
    """
    length = logits.shape[-1]
    itself = ops.eye(length, dtype="float32")
    keep = ops.cast(keep, "float32")
    seen = ops.expand_dims(ops.expand_dims(keep, 1), 1)
    seen = seen + (1.0 - seen) * itself
    powers = ops.exp(logits - ops.max(logits, axis=-1, keepdims=True)) * seen
    total = ops.sum(powers, axis=-1, keepdims=True)
    return (powers + epsilon / length) / (total + epsilon)
