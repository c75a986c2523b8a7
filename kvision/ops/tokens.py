"""Some tokens of many: taken, put back, chosen by chance or by what they show.

Shapes: B batch, N tokens of a grid in row order, K of them, D width, h x w cells of a
coarse grid of which each holds 2 x 2 of a fine one.
"""

import math
from typing import Any

from keras import ops

from kvision.ops.gathering import gather_rows

__all__ = [
    "cells_to_grid",
    "covered_cells",
    "detail_energy",
    "grid_to_cells",
    "hard_decisions",
    "positions_of",
    "scatter_tokens",
    "share_of",
]

Tensor = Any


def share_of(length: int, share: float) -> int:
    """Count a share of some tokens, rounded down.

    Args:
        length: number of tokens.
        share: in [0, 1].

    Returns:
        The number: 137 for 0.7 of 196.
    """
    # 100 * 0.7**2 is 48.99999999999999 in floating point.
    return math.floor(length * share + 1e-6)


def positions_of(indices: Tensor, length: int) -> Tensor:
    """Find where each number stands in a list of different numbers.

    Args:
        indices: (B, K) int32 tensor in 0..N-1.
        length: N.

    Returns:
        (B, N) int32 tensor in 0..K-1, or -1 where a number is not in the list.
    """
    count = indices.shape[1]
    numbers = ops.reshape(ops.arange(length, dtype="int32"), (1, length, 1))
    found = ops.equal(ops.expand_dims(indices, 1), numbers)
    places = ops.reshape(ops.arange(1, count + 1, dtype="int32"), (1, 1, count))
    return ops.sum(ops.where(found, places, 0), axis=-1) - 1


def scatter_tokens(tokens: Tensor, indices: Tensor, background: Tensor) -> Tensor:
    """Put tokens back where they were taken.

    Args:
        tokens: (B, K, D) tensor.
        indices: (B, K) int32 tensor in 0..N-1, different in each row.
        background: (B, N, D) tensor: what stands where no token is put.

    Returns:
        (B, N, D) tensor.
    """
    count, length = indices.shape[1], background.shape[1]
    positions = positions_of(indices, length)
    own = count + ops.reshape(ops.arange(length, dtype="int32"), (1, length))
    rows = ops.where(positions < 0, own, positions)
    return gather_rows(ops.concatenate([tokens, background], axis=1), rows)


def grid_to_cells(grid: Tensor) -> Tensor:
    """Lay the four fine tokens of each coarse cell side by side.

    Args:
        grid: (B, 2h, 2w, D) tensor.

    Returns:
        (B, h * w, 4D) tensor; within a cell row by row.
    """
    _, rows, columns, width = grid.shape
    # Not (B, h, 2, w, 2, D): delegates of TFLite refuse six dimensions.
    strips = ops.reshape(grid, (-1, 2, columns // 2, 2 * width))
    strips = ops.transpose(strips, (0, 2, 1, 3))
    return ops.reshape(strips, (-1, rows * columns // 4, 4 * width))


def cells_to_grid(cells: Tensor, height: int, width: int) -> Tensor:
    """Lay cells of four fine tokens out: the inverse of `grid_to_cells`.

    Args:
        cells: (B, h * w, 4D) tensor.
        height: h.
        width: w.

    Returns:
        (B, 2h, 2w, D) tensor.
    """
    depth = cells.shape[-1] // 4
    strips = ops.reshape(cells, (-1, width, 2, 2 * depth))
    strips = ops.transpose(strips, (0, 2, 1, 3))
    return ops.reshape(strips, (-1, 2 * height, 2 * width, depth))


def hard_decisions(logits: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
    """Draw yes or no with a gradient to how probable yes was.

    A Gumbel softmax over two classes: only the difference of their logits and that of
    their noises count, and the difference of two Gumbel noises is logistic.

    Args:
        logits: log-odds of yes, any shape.
        noise: uniform numbers in [0, 1) of the same shape.
        temperature: below 1 the gradient is steeper, above 1 flatter.

    Returns:
        Tensor of exactly 0 and 1; its gradient is that of
        sigmoid((logits + logistic noise) / temperature).

    Source: Jang et al. 2017, Categorical Reparameterization with Gumbel-Softmax,
    section 2.2 (straight through).
    """
    noise = ops.clip(noise, 1e-7, 1.0 - 1e-7)
    logistic = ops.log(noise) - ops.log(1.0 - noise)
    soft = ops.sigmoid((logits + logistic) / temperature)
    hard = ops.cast(soft >= 0.5, soft.dtype)
    return ops.stop_gradient(hard) + (soft - ops.stop_gradient(soft))


def detail_energy(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Measure what each patch loses when the image is brought to half its resolution.

    The blurred image has the mean of each 2 x 2 pixels; the squared differences to it
    are summed over the pixels and channels of a patch. Flat patches have exactly 0.

    Args:
        images: (B, H, W, C) float tensor.
        patch_size: (height, width) of a patch in pixels, even.

    Returns:
        (B, ceil(H / p), ceil(W / p)) tensor of at least 0; of a patch that sticks out
        of the image only the part inside counts.

    Source: the pixel-blur scorer of Ronen et al. 2023, Vision Transformers with
    Mixed-Resolution Tokenization, section 3.2, with a box filter for the blur.
    """
    _, height, width, _ = images.shape
    if height % 2 or width % 2:
        # The last row again: a border of zeros would look like detail.
        odd = [(0, 0), (0, height % 2), (0, width % 2), (0, 0)]
        images = ops.pad(images, odd, mode="symmetric")
    pixels = [images[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]
    mean = sum(pixels) * 0.25
    lost = ops.sum(sum(ops.square(pixel - mean) for pixel in pixels), axis=-1)
    return _sums_of_patches(lost, patch_size[0] // 2, patch_size[1] // 2)


def _sums_of_patches(values: Tensor, height: int, width: int) -> Tensor:
    """Sum (B, H, W) over patches; zeros fill up the last ones."""
    missing = -values.shape[1] % height, -values.shape[2] % width
    if any(missing):
        values = ops.pad(values, [(0, 0), (0, missing[0]), (0, missing[1])])
    rows, columns = values.shape[1] // height, values.shape[2] // width
    blocks = ops.reshape(values, (-1, height, columns, width))
    return ops.reshape(ops.sum(blocks, axis=(1, 3)), (-1, rows, columns))


def covered_cells(
    regions: Tensor, grid_size: tuple[int, int], patch_size: tuple[int, int]
) -> Tensor:
    """Tell which cells of a grid share a part of their area with any region.

    Args:
        regions: (B, n, 4) boxes x1, y1, x2, y2 in pixels; those without area, such as
            padding with zeros, cover nothing.
        grid_size: (h, w) of the grid.
        patch_size: (height, width) of a cell in pixels.

    Returns:
        (B, h, w) float tensor of 0 and 1.
    """
    rows = _overlaps(regions[:, :, 1], regions[:, :, 3], grid_size[0], patch_size[0])
    columns = _overlaps(regions[:, :, 0], regions[:, :, 2], grid_size[1], patch_size[1])
    # A cell is covered by the regions that cover both its row and its column.
    count = ops.matmul(ops.transpose(rows, (0, 2, 1)), columns)
    return ops.cast(count > 0.5, regions.dtype)


def _overlaps(start: Tensor, end: Tensor, count: int, side: int) -> Tensor:
    """Tell which of `count` intervals share a length with intervals (B, n)."""
    edges = ops.cast(ops.arange(count) * side, start.dtype)
    edges = ops.reshape(edges, (1, 1, count))
    shared = ops.minimum(ops.expand_dims(end, -1), edges + side) - ops.maximum(
        ops.expand_dims(start, -1), edges
    )
    return ops.cast(shared > 0, start.dtype)
