"""Grids of numbers as colours over a photo, with Pillow alone."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kvision.viz.detections import picture_zoom

__all__ = [
    "Picture",
    "Region",
    "draw_grid",
    "draw_heat",
    "draw_similarity",
    "enlarged_photo",
    "heat_colors",
    "seen_region",
]

Array = np.ndarray
Picture = np.ndarray | Image.Image
Region = tuple[float, float, float, float]

# Nine colours of matplotlib's "inferno" (CC0): even steps of lightness.
_HEAT = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    np.float32,
)
_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_OPACITY = 0.68  # of the hottest colour; the coldest has half of it
_DIM = 0.35  # light that is left where there is no number


def heat_colors(values: Array) -> Array:
    """Colour numbers from black (0) by purple and orange to light yellow (1).

    Args:
        values: array of any shape; what lies outside 0..1 is clipped, NaN becomes 0.

    Returns:
        (..., 3) uint8 array.
    """
    place = np.clip(np.nan_to_num(values), 0, 1) * (len(_HEAT) - 1)
    below = np.minimum(place.astype(int), len(_HEAT) - 2)
    share = (place - below)[..., None]
    colors = _HEAT[below] * (1 - share) + _HEAT[below + 1] * share
    return np.round(colors).astype(np.uint8)


def draw_heat(
    image: Picture,
    grid: Array,
    region: Region | None = None,
    *,
    limits: tuple[float, float] | None = None,
    smooth: bool = True,
    marked: tuple[int, int] | None = None,
) -> Image.Image:
    """Lay a grid of numbers over a photo, with a scale to its right.

    Args:
        image: (H, W, 3) uint8 array or Pillow image; a small one is enlarged.
        grid: (h, w) array of numbers; cells of NaN leave the photo dark.
        region: x1, y1, x2, y2 of the grid in pixels of the photo (`seen_region`); the
            whole photo by default. What is outside of it is dark.
        limits: numbers of the coldest and the hottest colour; least and largest of the
            grid by default.
        smooth: whether colours run from the middle of a cell to the next. A grid with
            NaN is drawn in cells.
        marked: (row, column) of a cell to be framed.

    Returns:
        A Pillow image in RGB.
    """
    grid = _checked_grid(grid)
    photo, region = enlarged_photo(image, region)
    low, high = limits or _limits(grid)
    heat, inside = _spread(
        (grid - low) / (high - low if high > low else 1.0),
        photo.size,
        region,
        smooth and bool(np.isfinite(grid).all()),
    )
    picture = Image.fromarray(_blend(np.asarray(photo), heat, inside))
    if marked is not None:
        _frame(picture, _cell(region, grid.shape, *marked))
    return _with_scale(picture, low, high)


def draw_grid(grid: Array, side: int, limits: tuple[float, float]) -> Image.Image:
    """Draw a grid of numbers alone, each cell a square.

    Args:
        grid: (h, w) array of numbers.
        side: of a cell, in pixels.
        limits: numbers of the coldest and the hottest colour.

    Returns:
        A Pillow image in RGB, (h * side) x (w * side).
    """
    low, high = limits
    colors = heat_colors((_checked_grid(grid) - low) / max(high - low, 1e-12))
    return Image.fromarray(colors.repeat(side, 0).repeat(side, 1))


def draw_similarity(
    similarity: Array, limits: tuple[float, float] = (-1.0, 1.0), side: int = 900
) -> Image.Image:
    """Draw for each cell of a grid how similar all cells are to it.

    In row y and column x stands a small grid, that of the cell (y, x).

    Args:
        similarity: (h, w, h, w) array, as `position_similarity` gives it.
        limits: numbers of the coldest and the hottest colour.
        side: about how wide the picture becomes, in pixels. Of a grid with many cells
            only every second, third ... is drawn.

    Returns:
        A Pillow image in RGB.

    Source: after Dosovitskiy et al. 2021, figure 7 (middle).
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 4 or similarity.shape[:2] != similarity.shape[2:]:
        raise ValueError(
            f"Expected similarities (h, w, h, w). Received: shape {similarity.shape}"
        )
    rows, columns = similarity.shape[:2]
    # At least two pixels a cell: fewer tiles rather than smaller ones.
    step = max(1, math.ceil(2 * columns * columns / side))
    shown = similarity[step // 2 :: step, step // 2 :: step]
    cell = max(2, side // (shown.shape[1] * (columns + 1)))
    gap = max(2, cell)
    height, width = rows * cell + gap, columns * cell + gap
    page = Image.new(
        "RGB", (shown.shape[1] * width + gap, shown.shape[0] * height + gap), _PAPER
    )
    for y, row in enumerate(shown):
        for x, grid in enumerate(row):
            corner = gap + x * width, gap + y * height
            page.paste(draw_grid(grid, cell, limits), corner)
    return _with_scale(page, *limits)


def seen_region(
    photo_size: tuple[int, int],
    image_size: tuple[int, int],
    resize: str = "crop",
    crop_fraction: float = 0.875,
) -> Region:
    """Say which part of a photo a classifier's input shows.

    Args:
        photo_size: (height, width) of the photo in pixels.
        image_size: (height, width) of the model's input in pixels.
        resize: rule of the model's preprocessing: "crop", "stretch" or "pad".
        crop_fraction: the same.

    Returns:
        x1, y1, x2, y2 in pixels of the photo. With "pad" the filling lies outside of
        the photo.
    """
    from kvision.ops.preparation import check_preparation, covering, enlarged

    check_preparation(image_size, resize, crop_fraction, "bicubic")
    height, width = photo_size
    first = 0, 0
    if resize == "stretch":
        whole = image_size
    elif resize == "pad":
        ratio = min(image_size[0] / height, image_size[1] / width)
        whole = (
            max(1, math.floor(height * ratio + 0.5)),
            max(1, math.floor(width * ratio + 0.5)),
        )
    else:
        whole = covering(height, width, enlarged(image_size, crop_fraction))
        first = (
            round((whole[0] - image_size[0]) / 2),
            round((whole[1] - image_size[1]) / 2),
        )
    y, x = height / whole[0], width / whole[1]
    top, left = first
    return (
        left * x,
        top * y,
        (left + image_size[1]) * x,
        (top + image_size[0]) * y,
    )


def enlarged_photo(
    image: Picture, region: Region | None = None
) -> tuple[Image.Image, Region]:
    """Make a small photo large enough to draw on, and a region with it.

    Args:
        image: (H, W, 3) uint8 array or Pillow image.
        region: x1, y1, x2, y2 in its pixels; all of it by default.

    Returns:
        The photo in RGB and the region in its pixels.
    """
    photo = image if isinstance(image, Image.Image) else Image.fromarray(image)
    zoom = picture_zoom((photo.height, photo.width))
    x1, y1, x2, y2 = region or (0, 0, *photo.size)
    size = photo.width * zoom, photo.height * zoom
    enlarged = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    return enlarged, (x1 * zoom, y1 * zoom, x2 * zoom, y2 * zoom)


def _checked_grid(grid: Array) -> Array:
    grid = np.asarray(grid, np.float32)
    if grid.ndim != 2 or not grid.size:
        raise ValueError(f"Expected a grid (h, w). Received: shape {grid.shape}")
    return grid


def _limits(grid: Array) -> tuple[float, float]:
    known = grid[np.isfinite(grid)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def _spread(
    grid: Array, size: tuple[int, int], region: Sequence[float], smooth: bool
) -> tuple[Array, Array]:
    """Return the number of each pixel (H, W), and where there is one."""
    x1, y1, x2, y2 = region
    axes = []
    for length, start, stop, cells in (
        (size[1], y1, y2, grid.shape[0]),
        (size[0], x1, x2, grid.shape[1]),
    ):
        place = (np.arange(length) + 0.5 - start) / (stop - start) * cells
        axes.append((place, (place >= 0) & (place < cells), cells))
    inside = axes[0][1][:, None] & axes[1][1]
    if smooth:
        rows, columns = (_interpolation(place, cells) for place, _, cells in axes)
        return rows @ grid @ columns.T, inside
    rows, columns = (
        np.clip(np.floor(place).astype(int), 0, cells - 1) for place, _, cells in axes
    )
    values = grid[rows[:, None], columns]
    return values, inside & np.isfinite(values)


def _interpolation(place: Array, cells: int) -> Array:
    """Return the matrix (pixels, cells) of bilinear interpolation."""
    place = np.clip(place - 0.5, 0, cells - 1)
    share = 1 - np.abs(place[:, None] - np.arange(cells))
    return np.maximum(share, 0).astype(np.float32)


def _blend(photo: Array, heat: Array, inside: Array) -> Array:
    opacity = (_OPACITY * (0.5 + 0.5 * np.clip(np.nan_to_num(heat), 0, 1)))[..., None]
    below = photo.astype(np.float32)
    blend = below * (1 - opacity) + heat_colors(heat) * opacity
    blend = np.where(inside[..., None], blend, below * _DIM)
    return np.round(blend).astype(np.uint8)


def _cell(region: Sequence[float], shape: Sequence[int], row: int, column: int) -> Any:
    x1, y1, x2, y2 = region
    height, width = (y2 - y1) / shape[0], (x2 - x1) / shape[1]
    left, top = x1 + column * width, y1 + row * height
    return left, top, left + width, top + height


def _frame(picture: Image.Image, box: Sequence[float]) -> None:
    left, top, right, bottom = (round(side) for side in box)
    draw = ImageDraw.Draw(picture)
    thick = max(2, max(picture.size) // 200)
    draw.rectangle(
        (left - 1, top - 1, right, bottom), outline=(0, 0, 0), width=thick + 2
    )
    draw.rectangle((left, top, right - 1, bottom - 1), outline=_PAPER, width=thick)


def _with_scale(picture: Image.Image, low: float, high: float) -> Image.Image:
    """Put a bar of colours with its two numbers to the right."""
    font_size = max(12, round(max(picture.size) / 45))
    font = ImageFont.load_default(size=font_size)
    texts = [f"{value:.2g}" for value in (high, low)]
    room = max(font.getlength(text) for text in texts)
    gap = font_size // 2
    bar = font_size
    page = Image.new(
        "RGB", (picture.width + round(max(bar, room)) + 2 * gap, picture.height), _PAPER
    )
    page.paste(picture, (0, 0))
    draw = ImageDraw.Draw(page)
    left = picture.width + gap
    top, bottom = font_size + gap, picture.height - font_size - gap
    if bottom > top:
        colors = heat_colors(np.linspace(1, 0, bottom - top))[:, None]
        page.paste(Image.fromarray(colors.repeat(bar, 1)), (left, top))
    draw.text((left, top - gap // 2), texts[0], fill=_INK, font=font, anchor="ls")
    draw.text((left, bottom + gap // 2), texts[1], fill=_INK, font=font, anchor="lt")
    return page
