"""Attention rollout: how much of each input token is in each token at the end.

Shapes: B batch, H heads, N tokens of a block, N0 tokens of the first one.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from keras import ops

__all__ = ["Fusion", "attention_rollout", "fuse_heads", "scores_with_residual"]

Tensor = Any
Fusion = Literal["mean", "max", "min"]

_FUSIONS = {"mean": ops.mean, "max": ops.max, "min": ops.min}


def fuse_heads(
    scores: Tensor, fusion: Fusion = "mean", discard_ratio: float = 0.0
) -> Tensor:
    """Make one matrix of the attention of all heads; each row sums to 1.

    Args:
        scores: (B, H, N, M) tensor in [0, 1].
        fusion: "mean", "max" or "min" over the heads.
        discard_ratio: share of each row, its smallest numbers, that becomes 0; of equal
            numbers at the limit none does. In [0, 1).

    Returns:
        (B, N, M) float32 tensor. A row that the heads agree on nowhere ("min") is 0.

    Raises:
        ValueError: for an unknown fusion or a ratio out of range.
    """
    if fusion not in _FUSIONS:
        raise ValueError(
            f"fusion must be one of {', '.join(_FUSIONS)}. Received: {fusion!r}"
        )
    if not 0 <= discard_ratio < 1:
        raise ValueError(f"discard_ratio must be in [0, 1). Received: {discard_ratio}")
    fused = _FUSIONS[fusion](ops.cast(scores, "float32"), axis=1)
    discarded = int(fused.shape[-1] * discard_ratio)
    if discarded:
        least = ops.sort(fused, axis=-1)[:, :, discarded : discarded + 1]
        fused = ops.where(fused < least, 0.0, fused)
    return _rows_to_one(fused)


def scores_with_residual(fused: Tensor, residual: float = 0.5) -> Tensor:
    """Mix attention with the identity, which is the way around the attention.

    Args:
        fused: (B, N, N) float32 tensor whose rows sum to 1, or to 0.
        residual: share of the identity, in [0, 1).

    Returns:
        (B, N, N) float32 tensor whose rows sum to 1.

    Raises:
        ValueError: for a share out of range.
    """
    if not 0 <= residual < 1:
        raise ValueError(f"residual must be in [0, 1). Received: {residual}")
    itself = ops.eye(fused.shape[-1], dtype="float32")
    return _rows_to_one(residual * itself + (1 - residual) * fused)


def attention_rollout(
    scores: Iterable[Tensor],
    *,
    fusion: Fusion = "mean",
    residual: float = 0.5,
    discard_ratio: float = 0.0,
    kept: Mapping[int, Tensor] | None = None,
) -> Tensor:
    """Multiply the attention of all blocks, from the first to the last.

    Row i of the result says of which input tokens token i is made at the end. Every
    row of every factor sums to 1, and so do those of the product.

    Args:
        scores: a (B, H, N, N) tensor in [0, 1] for each block, first block first. A
            generator will do: one block is held at a time.
        fusion: see `fuse_heads`.
        residual: see `scores_with_residual`; 0.5 is the paper's.
        discard_ratio: see `fuse_heads`.
        kept: where tokens are pruned: number of a block -> (B, N) integers, which of
            the tokens before the pruning the N tokens of that block are.

    Returns:
        (B, N, N0) float32 tensor; N is that of the last block.

    Raises:
        ValueError: if there is no block, or one does not fit the one before.

    Source: Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers,
    equation 1.
    """
    rolled = None
    for number, block in enumerate(scores):
        mixed = scores_with_residual(fuse_heads(block, fusion, discard_ratio), residual)
        if rolled is not None and kept is not None and number in kept:
            indices = ops.expand_dims(ops.cast(kept[number], "int32"), -1)
            rolled = ops.take_along_axis(rolled, indices, axis=1)
        if rolled is not None and rolled.shape[1] != mixed.shape[2]:
            raise ValueError(
                f"Block {number} attends to {mixed.shape[2]} tokens but "
                f"{rolled.shape[1]} leave the block before. Where tokens are pruned, "
                "`kept` must say which stay"
            )
        rolled = mixed if rolled is None else ops.matmul(mixed, rolled)
    if rolled is None:
        raise ValueError("A rollout needs the attention of at least one block")
    return rolled


def _rows_to_one(matrix: Tensor) -> Tensor:
    """Divide each row by its sum; a row of zeros stays one."""
    total = ops.sum(matrix, axis=-1, keepdims=True)
    return matrix / ops.where(total > 0, total, 1.0)
