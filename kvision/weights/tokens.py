"""Learned tokens and positions of a Vision Transformer, from tables of any grid.

Some files have positions for their prefix tokens (class, distillation, registers), some
for the first of them, some add positions to patches alone; and so do models. The sum is
the same: a position can be added to its token once and for all, or be zero.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kvision.ops.resampling import resize_grid
from kvision.weights.places import Place, Shape, plain

__all__ = ["positions", "tokens_and_positions"]

Array = np.ndarray
Grid = tuple[int, int]


def tokens_and_positions(
    layers: Mapping[str, Any],
    names: Mapping[str, str],
    table: str,
    shapes: Mapping[str, Shape],
    interpolation: str,
) -> Iterator[Place]:
    """Place the tokens that a model puts before its patches, and its positions.

    Args:
        layers: those of the model, by name.
        names: layer of learned tokens -> tensor, in the order of the tokens.
        table: tensor of positions (1, P + N, D).
        shapes: of the tensors of the checkpoint.
        interpolation: by which the source resamples positions
            (`kvision.ops.resampling`).

    Yields:
        A place for each kind of token and one for the positions.
    """
    tokens = [(layers[n].tokens, name) for n, name in names.items() if n in layers]
    ends = [0, *itertools.accumulate(variable.shape[1] for variable, _ in tokens)]
    embedding: Any = layers.get("position_embedding")
    learned = hasattr(embedding, "table") and hasattr(embedding, "num_prefix_tokens")
    prefix = _prefix(embedding, shapes.get(table, ()), ends) if learned else 0
    for (variable, name), (start, end) in zip(
        tokens, itertools.pairwise(ends), strict=True
    ):
        if end <= prefix and not embedding.num_prefix_tokens:
            place = functools.partial(_sum, rows=slice(start, end))
            both = (tuple(variable.shape), shapes[table])
            yield Place(variable, (name, table), both, place)
        else:
            yield from plain(variable, name)
    if learned:
        yield positions(embedding, table, prefix, interpolation)


def positions(embedding: Any, name: str, prefix: int, interpolation: str) -> Place:
    """Place positions of any square grid, or of that of the model.

    Args:
        embedding: a `PositionEmbedding` of a model.
        name: of the tensor (1, P + N, D).
        prefix: P, how many prefix tokens have a row in it.
        interpolation: by which the source resamples positions.

    Returns:
        The place.
    """
    rows, columns = _grid_of(embedding)
    own, width = embedding.num_prefix_tokens, embedding.table.shape[-1]

    def resize(values: Array) -> Array:
        first, cells = np.split(values[0].astype(np.float32), [prefix])
        grid = cells.reshape(*_square(len(cells), (rows, columns)), width)
        return joined(first, resize_grid(grid, (rows, columns), interpolation))

    def keep(values: Array) -> Array:
        return joined(*np.split(values[0], [prefix]))

    def joined(first: Array, cells: Array) -> Array:
        # What the file has no position for gets none.
        missing = np.zeros((own - min(own, prefix), width), first.dtype)
        parts = [first[:own], missing, cells.reshape(-1, width)]
        return np.concatenate(parts)[None]

    shape: Shape = (1, prefix + rows * columns, width)
    if rows != columns and _is_square(rows * columns):
        # As many cells as a square grid, which is what files have: no table fits as it
        # is. (timm takes 14 x 14 positions for 7 x 28.)
        shape = (1, prefix, rows, columns, width)
    return Place(embedding.table, (name,), (shape,), keep, resize)


def _prefix(embedding: Any, shape: Shape, ends: list[int]) -> int:
    """Find out how many of a table's rows are those of prefix tokens.

    Their number is one of `ends`, and what is left a grid: the model's or a square one.
    """
    own = embedding.num_prefix_tokens
    length = shape[1] if len(shape) == 3 else 0
    cells = math.prod(_grid_of(embedding))
    candidates = [own, *ends]
    exact = [count for count in candidates if length - count == cells]
    square = [count for count in candidates if _is_square(length - count)]
    return next(iter(exact + square), own)


def _grid_of(embedding: Any) -> Grid:
    grid: Grid = embedding.table_grid or embedding.grid
    return grid


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count


def _square(count: int, wanted: Grid) -> Grid:
    if not _is_square(count):
        raise ValueError(
            f"its {count} positions are no square grid, and the model's "
            f"{wanted[0]} x {wanted[1]} is another. Build the model for images of the "
            "checkpoint's size, load, and use kvision.models.with_image_size"
        )
    return (math.isqrt(count),) * 2


def _sum(token: Array, table: Array, rows: slice) -> Array:
    return token.astype(np.float32) + table[:, rows].astype(np.float32)
