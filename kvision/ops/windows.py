"""Grids cut into windows and put together again, in at most four dimensions.

Shapes: B batch, h rows, w columns, C channels, n windows of an image.
"""

from typing import Any

from keras import ops

__all__ = ["bands", "merge_windows", "partition_windows"]

Tensor = Any


def bands(length: int, side: int) -> list[slice]:
    """Cut an axis into what windows fill and what is left over.

    Args:
        length: cells of the axis.
        side: of a window.

    Returns:
        One or two slices.
    """
    full = length - length % side
    return [band for band in (slice(0, full), slice(full, length)) if _length(band)]


def _length(band: slice) -> int:
    return band.stop - band.start


def partition_windows(grid: Tensor, sides: tuple[int, int]) -> Tensor:
    """Lay out the cells of each window in a row.

    Args:
        grid: (B, h, w, C) tensor; windows fit.
        sides: (height, width) of a window.

    Returns:
        (B * n, height * width, C) tensor; windows and their cells row by row.
    """
    channels, columns = grid.shape[3], grid.shape[2]
    height, width = sides
    strips = ops.reshape(grid, (-1, height, columns // width, width * channels))
    windows = ops.transpose(strips, (0, 2, 1, 3))
    return ops.reshape(windows, (-1, height * width, channels))


def merge_windows(
    windows: Tensor, sides: tuple[int, int], grid_size: tuple[int, int]
) -> Tensor:
    """Undo `partition_windows`.

    Args:
        windows: (B * n, height * width, C) tensor.
        sides: (height, width) of a window.
        grid_size: (h, w).

    Returns:
        (B, h, w, C) tensor.
    """
    channels = windows.shape[-1]
    height, width = sides
    rows, columns = grid_size
    strips = (-1, columns // width, height, width * channels)
    grid = ops.transpose(ops.reshape(windows, strips), (0, 2, 1, 3))
    return ops.reshape(grid, (-1, rows, columns, channels))
