"""Drawing on matplotlib's axes, as scripts expect it (extra `viz`).

`kvision.viz` and `Detections.plot` draw without matplotlib.
"""

import colorsys
import random
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "apply_mask",
    "display_images",
    "display_instances",
    "display_top_masks",
    "random_colors",
]

Array = np.ndarray
Color = Sequence[float]

_MARGIN = 10  # pixels around the image, for captions


def random_colors(N: int, bright: bool = True) -> list[Color]:
    """Draw colours round the colour circle, in an order drawn with `random`.

    Args:
        N: how many.
        bright: whether they are light.

    Returns:
        Tuples of red, green and blue in 0-1.
    """
    value = 1.0 if bright else 0.7
    colors: list[Color] = [colorsys.hsv_to_rgb(i / N, 1, value) for i in range(N)]
    random.shuffle(colors)
    return colors


def apply_mask(image: Array, mask: Array, color: Color, alpha: float = 0.5) -> Array:
    """Blend a colour into the pixels of a mask.

    Args:
        image: (H, W, 3) array in 0-255; it is changed.
        mask: (H, W) bool or 0/1 array.
        color: red, green and blue in 0-1.
        alpha: share of the colour.

    Returns:
        The image.
    """
    inside = mask.astype(bool)
    blend = (1 - alpha) * image[inside] + alpha * 255 * np.asarray(color[:3])
    image[inside] = blend.astype(image.dtype)
    return image


def display_instances(
    image: Array,
    boxes: Array,
    masks: Array,
    class_ids: Array,
    class_names: Sequence[str],
    scores: Array | None = None,
    title: str = "",
    figsize: tuple[float, float] = (16, 16),
    ax: Any = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    colors: Sequence[Color] | None = None,
    captions: Sequence[str] | None = None,
) -> None:
    """Draw objects on an image, and show it if no axes are given.

    Args:
        image: (H, W, 3) array in 0-255.
        boxes: (N, 4) array, (y1, x1, y2, x2) in pixels; those of zeros are left out.
        masks: (H, W, N) bool or 0/1 array.
        class_ids: (N,) array.
        class_names: names by class, background first.
        scores: (N,) array for the captions.
        title: above the image.
        figsize: of a new figure, in inches.
        ax: matplotlib's axes; None makes a figure.
        show_mask: whether masks are filled; outlines are always drawn.
        show_bbox: whether boxes are drawn.
        colors: of each object, red, green and blue in 0-1.
        captions: of each object; by default its class and score.

    Raises:
        ValueError: the numbers of boxes, masks and classes differ.
    """
    if not len(boxes) == masks.shape[-1] == len(class_ids):
        raise ValueError(
            "boxes, masks and class_ids must be of the same objects. Received: "
            f"{len(boxes)} boxes, masks of shape {masks.shape}, {len(class_ids)} ids"
        )
    if not len(boxes):
        print("\n*** No instances to display *** \n")
    axes = _pyplot().subplots(figsize=figsize)[1] if ax is None else ax
    colors = random_colors(len(boxes)) if colors is None else colors
    _frame(axes, image, title)
    picture = image.astype(np.uint8)
    for row in np.flatnonzero(np.any(boxes, axis=1)).tolist():
        color, mask = colors[row], masks[..., row]
        if captions is not None:
            caption = captions[row]
        else:
            score = "" if scores is None else f" {scores[row]:.3f}"
            caption = f"{class_names[class_ids[row]]}{score}"
        if show_mask:
            picture = apply_mask(picture, mask, color)
        _outline(axes, boxes[row], mask, color, caption, show_bbox)
    axes.imshow(picture)
    if ax is None:
        _show()


def display_images(
    images: Sequence[Array],
    titles: Sequence[str] | None = None,
    cols: int = 4,
    cmap: Any = None,
    norm: Any = None,
    interpolation: str | None = None,
) -> None:
    """Show images side by side.

    Args:
        images: (H, W, 3) or (H, W) arrays.
        titles: above each.
        cols: images in a row.
        cmap: as of matplotlib's imshow.
        norm: as of matplotlib's imshow.
        interpolation: as of matplotlib's imshow.
    """
    rows = -(-len(images) // cols)
    figure = _pyplot().figure(figsize=(14, 14 * rows / cols))
    for number, image in enumerate(images):
        axes = figure.add_subplot(rows, cols, number + 1)
        axes.set_title("" if titles is None else titles[number], fontsize=9)
        axes.axis("off")
        axes.imshow(
            image.astype(np.uint8), cmap=cmap, norm=norm, interpolation=interpolation
        )
    _show()


def display_top_masks(
    image: Array,
    mask: Array,
    class_ids: Array,
    class_names: Sequence[str],
    limit: int = 4,
) -> None:
    """Show an image and, beside it, the masks of the classes that cover most of it.

    Args:
        image: (H, W, 3) array in 0-255.
        mask: (H, W, N) bool or 0/1 array.
        class_ids: (N,) array.
        class_names: names by class, background first.
        limit: how many classes.
    """
    areas = {
        label: mask[..., class_ids == label].sum() for label in np.unique(class_ids)
    }
    largest = sorted(areas, key=lambda label: -areas[label])[:limit]
    images, titles = [image], [f"H x W={image.shape[0]}x{image.shape[1]}"]
    for label in largest:
        of_class = mask[..., class_ids == label]
        # Each object in a shade of its own.
        images.append((of_class * np.arange(1, of_class.shape[-1] + 1)).max(axis=-1))
        titles.append(class_names[label])
    display_images(images, titles, cols=limit + 1, cmap="Blues_r")


def _frame(axes: Any, image: Array, title: str) -> None:
    height, width = image.shape[:2]
    axes.set_ylim(height + _MARGIN, -_MARGIN)
    axes.set_xlim(-_MARGIN, width + _MARGIN)
    axes.axis("off")
    axes.set_title(title)


def _outline(
    axes: Any, box: Array, mask: Array, color: Color, caption: str, show_bbox: bool
) -> None:
    """Draw the box, the outline of the mask and the caption of an object."""
    from matplotlib.patches import Rectangle

    y1, x1, y2, x2 = (float(edge) for edge in box[:4])
    if show_bbox:
        axes.add_patch(
            Rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                linewidth=2,
                linestyle="dashed",
                edgecolor=color,
                facecolor="none",
                alpha=0.7,
            )
        )
    axes.text(x1, y1 + 8, caption, color="w", size=11)
    if mask.any():
        framed = np.pad(mask.astype(float), 1)  # it may reach the edge of the image
        height, width = framed.shape
        axes.contour(
            np.arange(width) - 1, np.arange(height) - 1, framed, [0.5], colors=[color]
        )


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            "visualize needs matplotlib: pip install 'kvision[viz]'"
        ) from error
    return matplotlib.pyplot


def _show() -> None:
    with warnings.catch_warnings():
        # Without a display nothing is shown; scripts save the figure.
        warnings.filterwarnings("ignore", ".*non-interactive")
        _pyplot().show()
