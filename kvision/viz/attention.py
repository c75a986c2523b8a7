"""What the patches and the class token of a Vision Transformer look at."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from kvision.ops import rollout
from kvision.viz.token_layouts import (
    Cell,
    SummaryLayout,
    TokenLayout,
    WindowLayout,
    shared_out,
)
from kvision.viz.transformer_graph import (
    Block,
    BlockScores,
    block_scores,
    checked_images,
    chosen_blocks,
    transformer_blocks,
)

__all__ = ["AttentionMap", "attention_maps", "attention_rollout"]

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class AttentionMap(BlockScores):
    """The attention of one block, and where its queries and keys are.

    Args:
        name: of the block.
        scores: (B, H, N, M) float32 array in [0, 1]: H heads, N queries, M keys.
        layout: where queries and keys are on the grid of patches.
    """

    def grid(self, query: Cell | None = None, head: int | None = None) -> Array:
        """Lay out what a query looks at.

        Args:
            query: (row, column) of a patch; None for the class token or, in models
                without one, the mean of all patches.
            head: number of a head; None for the mean of all.

        Returns:
            (B, h, w) float32 array; NaN for patches that the query cannot see, and
            for those that were pruned before.

        Raises:
            ValueError: if there is no such query or head.
        """
        return self._fused(self.layout.seen_by(self.scores, query), head)

    def _fused(self, seen: Array, head: int | None) -> Array:
        heads = seen.shape[1]
        if head is None:
            return seen.mean(axis=1)
        if not -heads <= head < heads:
            raise ValueError(f"{self.name} has {heads} heads. Received: head={head}")
        return seen[:, head]

    def __repr__(self) -> str:
        batch, heads, queries, keys = self.scores.shape
        return (
            f"<attention of {self.name}: {batch} images, {heads} heads, {queries} "
            f"queries, {keys} keys>"
        )


def attention_maps(
    model: keras.Model,
    images: Any,
    blocks: "Sequence[Block] | Block | None" = None,
) -> list[AttentionMap]:
    """Compute the attention weights of some blocks.

    The model runs as ever and keeps what enters the blocks asked for; only their
    weights are then computed.

    Example:
        (last,) = kvision.viz.attention_maps(model, images, blocks=-1)
        picture = kvision.viz.draw_heat(images[0], last.grid(head=2)[0])

    Args:
        model: a Functional model of `kvision.models` with transformer blocks.
        images: (B, H, W, C) or (H, W, C) array in 0..255 of the model's input size.
        blocks: numbers (-1 is the last) or names of blocks; None for all.

    Returns:
        One map for each block, in the order asked for.

    Raises:
        ValueError: if the model has no such blocks, or images do not fit.
    """
    chosen = chosen_blocks(model, blocks)
    images = checked_images(model, images)
    return [
        AttentionMap(found.name, found.scores, found.layout)
        for found in block_scores(model, images, chosen)
    ]


def attention_rollout(
    model: keras.Model,
    images: Any,
    *,
    fusion: rollout.Fusion = "mean",
    residual: float = 0.5,
    discard_ratio: float = 0.0,
) -> Array:
    """Follow attention through all blocks back to the patches.

    What is asked for is what the class token is made of at the end or, in models
    without one, the mean of all patches. In Twins a cell of a smaller grid is made of
    the cells it was joined from in equal parts.

    Args:
        model: a Functional model of `kvision.models` with transformer blocks.
        images: (B, H, W, C) or (H, W, C) array in 0..255 of the model's input size.
        fusion: how heads become one: "mean", "max" or "min".
        residual: share that takes the way around each attention.
        discard_ratio: share of each row of attention, its least, that is left out.

    Returns:
        (B, h, w) float32 array of shares. Their sum is at most 1; what is missing stays
        with class and other tokens that are no patch.

    Raises:
        ValueError: for an argument out of range, or a model without blocks.

    Source: Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers,
    section 3.
    """
    blocks = transformer_blocks(model)
    images = checked_images(model, images)
    options: dict[str, Any] = {"fusion": fusion, "discard_ratio": discard_ratio}
    if len(blocks[0].output.shape) == 4:
        found = list(block_scores(model, images, blocks))
        return _rolled_back(found, residual, **options)
    return _of_the_image(block_scores(model, images, blocks), residual, **options)


def _of_the_image(
    blocks: Iterator[BlockScores], residual: float, **options: Any
) -> Array:
    """Return the row of a rollout that stands for the image, on the grid."""
    layouts: list[TokenLayout] = []
    kept: dict[int, Array] = {}

    def scores() -> Iterator[Array]:
        for number, block in enumerate(blocks):
            layout = cast(TokenLayout, block.layout)
            if layouts and not np.array_equal(layout.cells, layouts[-1].cells):
                kept[number] = _tokens_kept(layouts[-1], layout)
            layouts.append(layout)
            yield block.scores

    rolled = ops.convert_to_numpy(
        rollout.attention_rollout(scores(), residual=residual, kept=kept, **options)
    )
    # The rows are those of the last block, the columns those of the first.
    first = layouts[0]
    prefix = first.num_prefix_tokens
    row = rolled[:, 0] if first.has_class_token else rolled[:, prefix:].mean(1)
    return first.shared_out(row[:, prefix:])


def _tokens_kept(before: TokenLayout, after: TokenLayout) -> Array:
    """Say which of the tokens before a pruning those after it are.

    Args:
        before: their layout.
        after: the same.

    Returns:
        (B, P + K) integers.
    """
    old, cells = (
        layout.cells.reshape(len(layout.cells), -1) for layout in (before, after)
    )
    count = cells.max() + 1
    # Cells in the order of their tokens; those without one sort to the front.
    by_token = np.argsort(cells, axis=1, kind="stable")[:, -count:]
    patches = np.take_along_axis(old, by_token, axis=1) + after.num_prefix_tokens
    prefix = np.arange(after.num_prefix_tokens)[None].repeat(len(cells), axis=0)
    return np.concatenate([prefix, patches], axis=1)


def _rolled_back(blocks: list[BlockScores], residual: float, **options: Any) -> Array:
    """Follow the mean of all cells back through grids that grow."""
    last = blocks[-1].layout.grid_size
    weights: Array = np.full((len(blocks[-1].scores), *last), 1 / math.prod(last))
    for block in reversed(blocks):
        layout = cast(WindowLayout | SummaryLayout, block.layout)
        if weights.shape[1:] != layout.grid_size:
            sizes = zip(layout.grid_size, weights.shape[1:], strict=True)
            side = max(-(-finer // coarser) for finer, coarser in sizes)
            weights = shared_out(weights, side, layout.grid_size)
        fused = ops.convert_to_numpy(rollout.fuse_heads(block.scores, **options))
        sent = layout.sent_back(fused, weights)
        weights = residual * weights + (1 - residual) * sent
    return weights
