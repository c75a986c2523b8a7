"""Anchors: the fixed boxes that a region proposal network classifies and moves."""

from collections.abc import Sequence

import numpy as np

__all__ = ["base_anchors", "level_anchors"]


def base_anchors(
    sizes: Sequence[float], aspect_ratios: Sequence[float], rounded: bool = True
) -> np.ndarray:
    """Make the anchors of one cell, centred on the origin.

    Args:
        sizes: square roots of the areas, in pixels.
        aspect_ratios: height / width.
        rounded: whether corners are rounded to whole pixels, as torchvision does and
            detectron2 does not.

    Returns:
        (len(aspect_ratios) * len(sizes), 4) float32 array; ratios vary slowest, so
        the wide boxes come first.

    Source: torchvision `models/detection/anchor_utils.py`.
    """
    ratios = np.asarray(aspect_ratios, np.float32)
    heights = np.sqrt(ratios)[:, None] * np.asarray(sizes, np.float32)[None, :]
    widths = (1 / np.sqrt(ratios))[:, None] * np.asarray(sizes, np.float32)[None, :]
    corners = np.stack([-widths, -heights, widths, heights], axis=-1) / 2
    anchors = corners.reshape(-1, 4).astype(np.float32)
    return np.round(anchors) if rounded else anchors


def level_anchors(
    grid_size: tuple[int, int],
    image_size: tuple[int, int],
    sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    rounded: bool = True,
    stride: int | None = None,
) -> np.ndarray:
    """Lay the anchors of one pyramid level over the image.

    Args:
        grid_size: (height, width) of the feature map.
        image_size: (height, width) of the image in pixels.
        sizes: square roots of the areas, in pixels.
        aspect_ratios: height / width.
        rounded: see `base_anchors`.
        stride: pixels from cell to cell; None for the whole number
            `image_size // grid_size`. The first cell is at 0, not at half a step.

    Returns:
        (height * width * anchors per cell, 4) float32 array in pixels, rows first, the
        anchors of a cell next to each other: the order of the RPN's outputs.
    """
    step_y, step_x = (
        stride or max(1, i // g) for i, g in zip(image_size, grid_size, strict=True)
    )
    y = np.arange(grid_size[0], dtype=np.float32) * step_y
    x = np.arange(grid_size[1], dtype=np.float32) * step_x
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    origins = np.stack([grid_x, grid_y, grid_x, grid_y], axis=-1).reshape(-1, 1, 4)
    return (origins + base_anchors(sizes, aspect_ratios, rounded)).reshape(-1, 4)
