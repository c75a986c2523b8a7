"""A photo and the scores of its best classes, with Pillow alone."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kvision.viz.detections import class_color, picture_zoom

__all__ = ["draw_scores"]

_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_TRACK = (232, 232, 232)


def draw_scores(
    image: "np.ndarray | Image.Image",
    names: Sequence[str],
    scores: Sequence[float],
    labels: Sequence[int] | None = None,
) -> Image.Image:
    """Draw a photo and, to its right, a bar for each class.

    Args:
        image: (H, W, 3) uint8 array or a Pillow image; a small one is enlarged.
        names: T names of classes, best first.
        scores: T scores in 0..1.
        labels: T integers that choose the colours; 0, 1, ... by default.

    Returns:
        A Pillow image in RGB.
    """
    if len(names) != len(scores):
        raise ValueError(f"Received {len(names)} names for {len(scores)} scores")
    photo = image if isinstance(image, Image.Image) else Image.fromarray(image)
    zoom = picture_zoom((photo.height, photo.width))
    photo = photo.convert("RGB").resize((photo.width * zoom, photo.height * zoom))
    font_size = max(14, round(photo.height / 24))
    font = ImageFont.load_default(size=font_size)
    rows = [
        f"{name}  {100 * score:.1f} %"
        for name, score in zip(names, scores, strict=True)
    ]
    width = max([font.getlength(text) for text in rows], default=0)
    panel = _panel_size(width, len(rows), font_size)
    page = Image.new(
        "RGB", (photo.width + panel[0], max(photo.height, panel[1])), _PAPER
    )
    page.paste(photo, (0, 0))
    draw = ImageDraw.Draw(page)
    left = photo.width + font_size
    right = page.width - font_size
    for row, (text, score) in enumerate(zip(rows, scores, strict=True)):
        top = font_size // 2 + row * _row_height(font_size)
        draw.text((left, top), text, fill=_INK, font=font)
        bar = top + round(font_size * 1.35)
        end = left + round((right - left) * float(score))
        label = row if labels is None else int(labels[row])
        thickness = max(4, font_size // 3)
        draw.rectangle((left, bar, right, bar + thickness), fill=_TRACK)
        if end > left:
            draw.rectangle((left, bar, end, bar + thickness), fill=class_color(label))
    return page


def _row_height(font_size: int) -> int:
    return round(font_size * 2.1)


def _panel_size(text_width: float, rows: int, font_size: int) -> tuple[int, int]:
    width = max(round(text_width), 10 * font_size) + 2 * font_size
    return width, rows * _row_height(font_size) + font_size
