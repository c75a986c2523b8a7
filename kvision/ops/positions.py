"""Codes of positions that need no learning, and distances between positions."""

import numpy as np

__all__ = ["relative_positions", "sincos_1d", "sincos_2d"]

Array = np.ndarray


def sincos_1d(length: int, embed_dim: int, temperature: float = 10000.0) -> Array:
    """Code positions 0..length-1: PE(pos, 2i) = sin(pos / T^(2i/D)), 2i+1 the cosine.

    Args:
        length: number of positions.
        embed_dim: D, even.
        temperature: T.

    Returns:
        (length, D) float32 array in [-1, 1].

    Raises:
        ValueError: if D is odd.

    Source: Vaswani et al. 2017, Attention Is All You Need, section 3.5.
    """
    if embed_dim % 2:
        raise ValueError(f"embed_dim must be even. Received: {embed_dim}")
    rates = temperature ** (-np.arange(0, embed_dim, 2) / embed_dim)
    angles = np.arange(length)[:, None] * rates
    codes = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return codes.reshape(length, embed_dim).astype(np.float32)


def sincos_2d(
    height: int, width: int, embed_dim: int, temperature: float = 10000.0
) -> Array:
    """Code the cells of a grid: sin x, cos x, sin y, cos y, a quarter of D each.

    Args:
        height: rows.
        width: columns.
        embed_dim: D, a multiple of 4.
        temperature: of the slowest wave.

    Returns:
        (height * width, D) float32 array in [-1, 1], row by row.

    Raises:
        ValueError: if D is no multiple of 4.

    Source: Chen et al. 2021, MoCo v3, as in google-research/big_vision,
    models/vit.py: posemb_sincos_2d.
    """
    if embed_dim % 4 or embed_dim < 8:
        raise ValueError(
            f"embed_dim must be a multiple of 4, 8 or more. Received: {embed_dim}"
        )
    quarter = embed_dim // 4
    rates = temperature ** (-np.arange(quarter) / (quarter - 1))
    rows, columns = np.mgrid[:height, :width]
    x, y = (axis.reshape(-1, 1) * rates for axis in (columns, rows))
    codes = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    return codes.astype(np.float32)


def relative_positions(height: int, width: int, num_prefix_tokens: int = 0) -> Array:
    """Number the offsets between the cells of a grid.

    Args:
        height: rows.
        width: columns.
        num_prefix_tokens: tokens before the cells that have no place; three more
            numbers then stand for "from a prefix", "to a prefix" and "among them".

    Returns:
        (P + N, P + N) int32 array of numbers from 0 on; (2 height - 1)(2 width - 1) of
        them stand for offsets.

    Source: Liu et al. 2021, Swin Transformer, equation 4; Bao et al. 2022, BEiT, for
    the prefix.
    """
    rows, columns = (axis.reshape(-1) for axis in np.mgrid[:height, :width])
    dy = rows[:, None] - rows + height - 1
    dx = columns[:, None] - columns + width - 1
    offsets = dy * (2 * width - 1) + dx
    count = (2 * height - 1) * (2 * width - 1)
    prefix = num_prefix_tokens
    numbers = np.full((prefix + height * width,) * 2, count + 2, np.int32)
    numbers[:prefix, prefix:] = count
    numbers[prefix:, :prefix] = count + 1
    numbers[prefix:, prefix:] = offsets
    return numbers
