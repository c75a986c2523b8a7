"""Boxes, masks and captions drawn on a photo, with Pillow alone."""

import colorsys
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

__all__ = ["class_color", "draw_detections", "picture_zoom"]

Array = np.ndarray
Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

# Chosen by eye to stay apart on photos; further classes walk round the colour circle.
_COLORS: tuple[Color, ...] = (
    (255, 59, 92),
    (47, 155, 255),
    (52, 199, 89),
    (255, 159, 10),
    (175, 82, 222),
    (0, 199, 190),
    (255, 214, 10),
    (255, 110, 199),
    (120, 100, 255),
    (163, 230, 53),
)
_GOLDEN_RATIO = 0.618034
# With more boxes than this a caption has to be narrower than its box.
_CROWDED = 20

_FILL = 0.40  # share of an instance's colour inside its mask


def draw_detections(
    image: "Array | Image.Image",
    boxes: Array,
    labels: Array | None = None,
    captions: Sequence[str] | None = None,
    masks: Iterable[tuple[int, int, Array]] | None = None,
    color_by: Literal["class", "instance"] | None = None,
) -> Image.Image:
    """Draw detections on a photo.

    Line width and captions grow with the photo. A caption is left out where it would
    cover another one, and in a crowd where it is wider than its box.

    Args:
        image: (H, W, 3) uint8 array or a Pillow image.
        boxes: (N, 4) array, xyxy in pixels of the image; best detection first.
        labels: (N,) integers that choose the colours; all alike by default.
        captions: N texts, such as "cat 0.93"; empty texts are not drawn.
        masks: N triples (top, left, mask): an instance's bool pixels inside its box,
            as `kvision.evaluation.patches` makes them. (0, 0, full-size mask) works.
        color_by: what a colour stands for; by default the class, and the instance
            where masks of one class would run together.

    Returns:
        A new Pillow image in RGB.
    """
    canvas = np.array(_as_image(image))
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.zeros(len(boxes), int) if labels is None else np.asarray(labels)
    if color_by is None:
        one_class = len(np.unique(labels)) < 2
        color_by = "instance" if masks is not None and one_class else "class"
    keys = labels if color_by == "class" else np.arange(len(boxes))
    colors = [class_color(int(key)) for key in keys]
    width = _line_width(canvas.shape)
    if masks is not None:
        _draw_masks(canvas, list(masks), colors, width)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    box_width = max(1, width // 2) if masks is not None else width
    for box, color in reversed(list(zip(boxes, colors, strict=True))):
        draw.rectangle(_corners(box, picture.size), outline=color, width=box_width)
    if captions is not None:
        _draw_captions(draw, boxes, captions, colors, picture.size)
    return picture


def picture_zoom(size: Sequence[int], least: int = 512) -> int:
    """Return by how much to enlarge a small image so that captions are readable.

    Args:
        size: (height, width) of the image in pixels.
        least: what the longer side should have, in pixels.

    Returns:
        A whole number from 1 to 8.
    """
    longer = max(1, *(int(side) for side in size[:2]))
    return int(np.clip(np.ceil(least / longer), 1, 8))


def class_color(label: int) -> Color:
    """Return the colour of a class.

    Args:
        label: an integer from 0.

    Returns:
        (red, green, blue), each 0..255; always the same for a label.
    """
    if 0 <= label < len(_COLORS):
        return _COLORS[label]
    hue = (label * _GOLDEN_RATIO) % 1.0
    light = (0.95, 0.75)[label % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, light)
    return round(red * 255), round(green * 255), round(blue * 255)


def _as_image(image: "Array | Image.Image") -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            "Expected an image of shape (H, W, 3) and dtype uint8. "
            f"Received: shape {image.shape}, dtype {image.dtype}"
        )
    return Image.fromarray(image)


def _line_width(shape: Sequence[int]) -> int:
    """Return a width for outlines: 2 px on 640 px, more on larger photos."""
    return max(1, round(max(shape[:2]) / 320))


def _corners(box: Array, size: tuple[int, int]) -> Rectangle:
    """Return the first and last pixel of a box, kept inside the picture."""
    x1, y1, x2, y2 = np.round(box).astype(int)
    left = int(np.clip(x1, 0, size[0] - 1))
    top = int(np.clip(y1, 0, size[1] - 1))
    right = int(np.clip(x2 - 1, left, size[0] - 1))
    bottom = int(np.clip(y2 - 1, top, size[1] - 1))
    return left, top, right, bottom


def _draw_masks(
    canvas: Array,
    masks: Sequence[tuple[int, int, Array]],
    colors: Sequence[Color],
    width: int,
) -> None:
    """Blend instances into the canvas, the largest first."""
    by_size = sorted(range(len(masks)), key=lambda i: -int(np.sum(masks[i][2])))
    for index in by_size:
        top, left, mask = masks[index]
        if not mask.size:
            continue
        rows = slice(top, top + mask.shape[0])
        columns = slice(left, left + mask.shape[1])
        alpha = np.where(mask, _FILL, 0.0)
        alpha[_contour(mask, width)] = 1.0
        below = canvas[rows, columns].astype(np.float32)
        blend = below + (np.array(colors[index]) - below) * alpha[..., None]
        canvas[rows, columns] = np.round(blend).astype(np.uint8)


def _contour(mask: Array, width: int) -> Array:
    """Return the pixels of a mask that lie within `width` of its outside."""
    framed = Image.fromarray(np.pad(mask, width).astype(np.uint8) * 255)
    inner = np.asarray(framed.filter(ImageFilter.MinFilter(2 * width + 1))) > 0
    return mask & ~inner[width:-width, width:-width]


def _draw_captions(
    draw: ImageDraw.ImageDraw,
    boxes: Array,
    captions: Sequence[str],
    colors: Sequence[Color],
    size: tuple[int, int],
) -> None:
    """Write each caption on a plate of its colour, where there is room."""
    font = ImageFont.load_default(size=_font_size(size))
    taken: list[Rectangle] = []
    for box, caption, color in zip(boxes, captions, colors, strict=True):
        left, top, right, bottom = draw.textbbox((0, 0), caption, font=font)
        margin = max(2, round((bottom - top) * 0.25))
        extent = right - left + 2 * margin, bottom - top + 2 * margin
        too_wide = len(boxes) > _CROWDED and extent[0] > box[2] - box[0]
        plate = None if too_wide else _place(box, extent, taken, size)
        if plate is None or not caption:
            continue
        taken.append(plate)
        draw.rectangle(plate, fill=color)
        origin = plate[0] + margin - left, plate[1] + margin - top
        draw.text(origin, caption, fill=_text_color(color), font=font)


def _font_size(size: tuple[int, int]) -> int:
    return max(11, round(max(size) / 52))


def _place(
    box: Array, extent: tuple[float, float], taken: list[Rectangle], size: Sequence[int]
) -> Rectangle | None:
    """Find a free place for a caption: above its box, inside it, or below."""
    x1, y1, _, y2 = box
    width, height = extent
    for top in (y1 - height, y1, y2 - height, y2):
        left = int(np.clip(x1, 0, max(0, size[0] - width)))
        top = round(float(top))
        plate = left, top, int(left + width) - 1, int(top + height) - 1
        inside = top >= 0 and plate[3] < size[1]
        if inside and not any(_meet(plate, other) for other in taken):
            return plate
    return None


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return not (
        one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    )


def _text_color(color: Color) -> Color:
    """Return black or white, whichever reads better on a colour."""
    light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    return (0, 0, 0) if light > 150 else (255, 255, 255)
