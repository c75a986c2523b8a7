"""Patches drawn over a photo: which are kept, and which are fine."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from kvision.viz.heatmaps import Picture, Region, enlarged_photo
from kvision.viz.panels import mosaic

__all__ = ["draw_kept", "draw_patches"]

Array = np.ndarray

_LINE = (255, 255, 255)
_DROPPED = 0.18  # light that is left of a patch that is gone


def draw_kept(
    image: Picture, kept: Mapping[str, Array], region: Region | None = None
) -> Image.Image:
    """Draw a photo once for each stage, dark where patches are gone.

    Args:
        image: (H, W, 3) uint8 array or Pillow image; a small one is enlarged.
        kept: name of a stage -> (h, w) bool array, as `kept_tokens` gives them for one
            image.
        region: x1, y1, x2, y2 of the grid in pixels of the photo (`seen_region`); the
            whole photo by default.

    Returns:
        A Pillow image in RGB: the photo, then the stages.
    """
    photo, region = enlarged_photo(image, region)
    pictures, captions = [photo], ["photo"]
    for name, cells in kept.items():
        light = np.full((photo.height, photo.width, 1), _DROPPED)
        for row, column in np.argwhere(cells):
            left, top, right, bottom = _box(region, cells.shape, row, column)
            light[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1.0
        pixels = np.round(np.asarray(photo) * light).astype(np.uint8)
        pictures.append(Image.fromarray(pixels))
        captions.append(f"{name}: {np.sum(cells)} of {cells.size}")
    return mosaic(pictures, columns=2, captions=captions)


def draw_patches(
    image: Picture, fine: Array, region: Region | None = None
) -> Image.Image:
    """Draw the edges of patches of two sizes over a photo.

    Args:
        image: (H, W, 3) uint8 array or Pillow image; a small one is enlarged.
        fine: (h, w) bool array, as `fine_patches` gives them for one image: which
            patches are cut into 2 x 2. For patches of one size give zeros.
        region: x1, y1, x2, y2 of the grid in pixels of the photo (`seen_region`); the
            whole photo by default.

    Returns:
        A Pillow image in RGB.
    """
    photo, region = enlarged_photo(image, region)
    picture = photo.copy()
    draw = ImageDraw.Draw(picture)
    width = max(1, max(picture.size) // 500)
    lines = []
    for (row, column), is_fine in np.ndenumerate(np.asarray(fine, bool)):
        boxes = [_box(region, fine.shape, row, column)]
        if is_fine:
            rows, columns = fine.shape
            boxes = [
                _box(region, (2 * rows, 2 * columns), 2 * row + y, 2 * column + x)
                for y in (0, 1)
                for x in (0, 1)
            ]
        lines += boxes
    # A dark line below the light one: photos have both.
    for color, thickness in (((0, 0, 0), width + 2), (_LINE, width)):
        for left, top, right, bottom in lines:
            edge = left, top, right, top, right, bottom, left, bottom, left, top
            draw.line(edge, fill=color, width=thickness)
    return picture


def _box(
    region: Region, grid_size: Sequence[int], row: int, column: int
) -> tuple[int, int, int, int]:
    """Return the pixels of a cell: left, top, right, bottom."""
    x1, y1, x2, y2 = region
    height, width = (y2 - y1) / grid_size[0], (x2 - x1) / grid_size[1]
    return (
        round(x1 + column * width),
        round(y1 + row * height),
        round(x1 + (column + 1) * width),
        round(y1 + (row + 1) * height),
    )
