"""Pictures put together: side by side, in a mosaic, into a file."""

import io
import math
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["mosaic", "save_picture", "side_by_side"]

Picture = np.ndarray | Image.Image

_PAPER = (255, 255, 255)
_INK = (40, 40, 40)


def side_by_side(
    left: Picture,
    right: Picture,
    titles: tuple[str, str] = ("ground truth", "prediction"),
) -> Image.Image:
    """Put two pictures next to each other under their titles.

    Args:
        left: (H, W, 3) uint8 array or Pillow image.
        right: the same; it may have another size.
        titles: a text above each.

    Returns:
        A Pillow image in RGB.
    """
    return mosaic([left, right], columns=2, captions=titles)


def mosaic(
    pictures: Sequence[Picture],
    columns: int | None = None,
    tile_size: tuple[int, int] | None = None,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """Lay pictures out in a grid.

    Args:
        pictures: (H, W, 3) uint8 arrays or Pillow images, of any sizes.
        columns: pictures in a row; by default the grid is about square.
        tile_size: (height, width) of each place in pixels; by default that of the
            largest picture. Pictures are shrunk to fit and never enlarged.
        captions: a text above each picture.

    Returns:
        A Pillow image in RGB.
    """
    images = [_rgb(picture) for picture in pictures]
    if not images:
        raise ValueError("A mosaic needs at least one picture")
    if captions is not None and len(captions) != len(images):
        raise ValueError(
            f"Received {len(captions)} captions for {len(images)} pictures"
        )
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    height, width = tile_size or (
        max(image.height for image in images),
        max(image.width for image in images),
    )
    gap = max(4, round(width / 80))
    font_size = max(12, round(width / 32))
    font = ImageFont.load_default(size=font_size)
    header = round(font_size * 1.5) if captions is not None else 0
    rows = math.ceil(len(images) / columns)
    page = Image.new(
        "RGB",
        (columns * (width + gap) + gap, rows * (height + header + gap) + gap),
        _PAPER,
    )
    draw = ImageDraw.Draw(page)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        x, y = gap + column * (width + gap), gap + row * (height + header + gap)
        if captions is not None:
            middle = x + width / 2, y + header / 2
            draw.text(middle, captions[index], fill=_INK, font=font, anchor="mm")
        image.thumbnail((width, height))
        corner = (
            x + (width - image.width) // 2,
            y + header + (height - image.height) // 2,
        )
        page.paste(image, corner)
    return page


def save_picture(picture: Picture, path: "str | PathLike[str]") -> Path:
    """Write a picture; a kill meanwhile leaves the old file as it was.

    Args:
        picture: (H, W, 3) uint8 array or Pillow image.
        path: file name; its ending chooses the format. Folders are made.

    Returns:
        The path.
    """
    path = Path(path)
    formats = Image.registered_extensions()
    if path.suffix.lower() not in formats:
        raise ValueError(f"{path}: no picture format ends in {path.suffix!r}; use .png")
    data = io.BytesIO()
    _rgb(picture).save(data, formats[path.suffix.lower()], quality=92)
    return write_bytes(path, data.getvalue())


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a whole file under a temporary name, then give it its own.

    Args:
        path: the file; folders are made.
        data: its content.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unfinished.write_bytes(data)
    unfinished.replace(path)
    return path


def _rgb(picture: Picture) -> Image.Image:
    """Return a copy as a Pillow image in RGB."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()
    return Image.fromarray(np.asarray(picture)).convert("RGB")
