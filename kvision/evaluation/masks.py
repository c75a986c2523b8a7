"""Instance masks of results: grids over boxes -> pixels of the photo, or COCO's RLE.

A mask stays a small grid over its box until somebody asks for pixels, and then only
the pixels inside its box are computed: 100 masks on a 12-megapixel photo are a few
megabytes as RLE and more than a gigabyte as full images.

Shape letters: N instances, h w cells of a grid, H W pixels of an image.
"""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

__all__ = ["Patch", "check_rle", "crop", "decode", "paste", "patches", "rles"]

Array = np.ndarray
RLE = dict[str, Any]


class Patch(NamedTuple):
    """The pixels of one instance inside its box.

    Attributes:
        top: row of the patch's first pixel in the image.
        left: column of the patch's first pixel in the image.
        mask: (h, w) bool array.
    """

    top: int
    left: int
    mask: Array


def paste(
    masks: Array, boxes: Array, size: tuple[int, int], threshold: float = 0.5
) -> Array:
    """Lay masks over their boxes in full-size images, exact to half a pixel.

    Args:
        masks: (N, h, w) array: floats in [0, 1] or uint8 in 0..255.
        boxes: (N, 4) array, xyxy in pixels; parts outside the image are cut off.
        size: (height, width) of the image in pixels.
        threshold: a pixel belongs to the instance from this value on.

    Returns:
        (N, height, width) bool array. It costs N * height * width bytes: see
        `patches` and `rles` for large photos.

    Source: the arithmetic of detectron2 `layers/mask_ops.py`.
    """
    full = np.zeros((len(boxes), *size), bool)
    for image, patch in zip(full, patches(masks, boxes, size, threshold), strict=True):
        rows, columns = patch.mask.shape
        image[patch.top : patch.top + rows, patch.left : patch.left + columns] = (
            patch.mask
        )
    return full


def patches(
    masks: Array, boxes: Array, size: tuple[int, int], threshold: float = 0.5
) -> Iterator[Patch]:
    """Make the pixels of each instance inside its box, one instance at a time.

    Args:
        masks: (N, h, w) array: floats in [0, 1] or uint8 in 0..255.
        boxes: (N, 4) array, xyxy in pixels.
        size: (height, width) of the image in pixels.
        threshold: a pixel belongs to the instance from this value on.

    Yields:
        One `Patch` per instance, empty where the box holds no pixel centre.
    """
    masks, boxes = _checked(masks, boxes)
    for mask, box in zip(masks, boxes, strict=True):
        left, top, columns = _patch_by_columns(mask, box, size, threshold)
        yield Patch(top, left, columns.T)


def rles(
    masks: Array, boxes: Array, size: tuple[int, int], threshold: float = 0.5
) -> list[RLE]:
    """Encode instances as COCO's compressed RLE without any full-size image.

    Args:
        masks: (N, h, w) array: floats in [0, 1] or uint8 in 0..255.
        boxes: (N, 4) array, xyxy in pixels.
        size: (height, width) of the image in pixels.
        threshold: a pixel belongs to the instance from this value on.

    Returns:
        N dicts `{"size": [height, width], "counts": str}`, as in result files.
    """
    masks, boxes = _checked(masks, boxes)
    height, width = int(size[0]), int(size[1])
    runs = [
        {
            "size": [height, width],
            "counts": _runs(*_patch_by_columns(mask, box, size, threshold), size),
        }
        for mask, box in zip(masks, boxes, strict=True)
    ]
    encoded = coco_mask.frPyObjects(runs, height, width) if runs else []
    for rle in encoded:
        rle["counts"] = rle["counts"].decode("ascii")
    return encoded


def crop(mask: Array, box: Array, size: int) -> Array:
    """Average a full-size mask over the cells of a grid laid on a box.

    Args:
        mask: (H, W) bool or 0/1 array.
        box: (4,) array, xyxy in pixels.
        size: number of cells m along each side of the box.

    Returns:
        (m, m) float32 array in [0, 1]: the share of each cell that the mask covers.
        `paste` is its inverse but for what m cells cannot hold.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    top, left = max(0, int(y1)), max(0, int(x1))
    inside = np.asarray(mask)[top : int(np.ceil(y2)), left : int(np.ceil(x2))]
    if not inside.size:
        return np.zeros((size, size), np.float32)
    rows = _cell_means(inside.astype(np.float32), y1 - top, y2 - top, size)
    return _cell_means(rows.T, x1 - left, x2 - left, size).T


def decode(rle: RLE) -> Array:
    """Decode COCO's compressed RLE.

    Args:
        rle: dict with `size` and `counts`.

    Returns:
        (H, W) bool array.
    """
    with warnings.catch_warnings():
        # pycocotools 2.0.11 does not take NumPy 2's copy argument.
        warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
        return coco_mask.decode(rle).astype(bool)


def check_rle(rle: Any, size: tuple[int, int] | None = None) -> None:
    """Refuse a compressed RLE that pycocotools would hang or run wild on.

    Args:
        rle: dict with `size` and `counts`.
        size: (height, width) that it should have; None for any.

    Raises:
        ValueError: it is malformed, or for an image of another size.
    """
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        raise ValueError(f"expected an RLE with size and counts, received {rle!r:.60}")
    if size is not None and tuple(rle["size"]) != tuple(size):
        raise ValueError(
            f"its mask is for (height, width) {list(rle['size'])}, the image has "
            f"{list(size)}; is its EXIF orientation applied in both?"
        )
    runs = _run_lengths(rle["counts"])
    height, width = rle["size"]
    if runs is None or runs.min() < 0 or runs.sum() != height * width:
        raise ValueError(f"the runs of its RLE do not add up to {height} x {width}")


def _run_lengths(counts: str | bytes) -> Array | None:
    """Decode COCO's compressed counts; None where they are malformed.

    A number is written in characters of 5 bits, the lowest first; bit 6 says that
    another follows, and the highest bit of the last is the sign. From the fourth on a
    number is the difference from the one two places before.
    """
    text = counts.encode() if isinstance(counts, str) else counts
    if not isinstance(text, bytes) or not text:
        return None
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(digits & 32 == 0)
    if digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        return None
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 8:
        return None
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31) << (5 * place), starts)
    numbers -= (digits[ends] & 16 > 0) * (1 << (5 * lengths))
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _checked(masks: Array, boxes: Array) -> tuple[Array, Array]:
    """Return masks as (N, h, w) floats in [0, 1] and boxes as (N, 4) float64."""
    masks, boxes = np.asarray(masks), np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or masks.ndim != 3:
        raise ValueError(
            "Expected masks of shape (N, h, w) and boxes of shape (N, 4). "
            f"Received: masks {masks.shape}, boxes {boxes.shape}"
        )
    if len(masks) != len(boxes):
        raise ValueError(f"Received {len(masks)} masks for {len(boxes)} boxes")
    if not np.isfinite(boxes).all():
        row = int(np.flatnonzero(~np.isfinite(boxes).all(axis=1))[0])
        raise ValueError(f"Box {row} is not finite: {boxes[row].tolist()}")
    if masks.dtype == np.uint8:
        return masks.astype(np.float32) / 255.0, boxes
    return masks.astype(np.float32, copy=False), boxes


def _patch_by_columns(
    mask: Array, box: Array, size: tuple[int, int], threshold: float
) -> tuple[int, int, Array]:
    """Return (left, top, pixels) with pixels (columns, rows): RLE's order.

    Interpolation is a gather and a product along each axis. Matrix products would do
    the same, but BLAS threads fight over patches as small as these.
    """
    grid = np.pad(mask.T, 1)
    left, cell, fraction = _positions(box[0], box[2], mask.shape[1], size[1], threshold)
    columns = grid[cell] + np.diff(grid, axis=0)[cell] * fraction[:, None]
    top, cell, fraction = _positions(box[1], box[3], mask.shape[0], size[0], threshold)
    values = np.diff(columns, axis=1)[:, cell]
    values *= fraction
    values += columns[:, cell]
    return left, top, values >= threshold


def _positions(
    start: float, end: float, cells: int, pixels: int, threshold: float
) -> tuple[int, Array, Array]:
    """Locate the pixels of a box along one axis between the centres of cells.

    A mask fades to 0 over half a cell beyond its outermost centres, which are half a
    cell inside the box: only below a threshold of 0.5 can pixels outside count.

    Returns:
        The first pixel; for each pixel the cell, in a grid with an empty cell added at
        both ends, whose centre lies before it; how far it is to the next one (0..1).
    """
    extent = end - start
    if extent <= 0:
        return 0, np.zeros(0, np.intp), np.zeros(0, np.float32)
    margin = max(0.0, 0.5 - threshold) * extent / cells
    first = max(0, int(np.ceil(start - margin - 0.5)))
    last = min(pixels - 1, int(np.floor(end + margin - 0.5)))
    centres = np.arange(first, last + 1) + 0.5
    position = (centres - start) * (cells / extent) + 0.5
    cell = np.clip(position.astype(np.intp), 0, cells)
    return first, cell, (position - cell).astype(np.float32)


def _runs(left: int, top: int, pixels: Array, size: tuple[int, int]) -> Array:
    """Return RLE counts (zeros first) of a patch given as (columns, rows)."""
    height, width = size
    columns, rows = pixels.shape
    # One empty pixel ahead of everything and one after each column end every run.
    flat = np.zeros(1 + columns * (rows + 1), bool)
    flat[1:].reshape(columns, rows + 1)[:, :-1] = pixels
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), rows + 1)
    edges = (left + column) * height + (top + row)
    if rows == height:
        # A run that reaches the bottom goes on at the top of the next column.
        joined = np.flatnonzero(edges[1:] == edges[:-1])
        edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(edges, prepend=0, append=height * width)
    return counts if counts[-1] else counts[:-1]


def _cell_means(values: Array, start: float, end: float, cells: int) -> Array:
    """Average (P, Q) pixels over cells of their first axis -> (cells, Q).

    A mean is a difference of the integral, which is linear between edges of pixels;
    beyond the image the values are 0.
    """
    integral = np.zeros((len(values) + 1, values.shape[1]), np.float32)
    np.cumsum(values, axis=0, out=integral[1:])
    edges = np.clip(np.linspace(start, end, cells + 1), 0, len(values))
    pixel = np.minimum(edges.astype(np.intp), len(values) - 1)
    fraction = (edges - pixel).astype(np.float32)[:, None]
    at_edges = integral[pixel] + values[pixel] * fraction
    return np.diff(at_edges, axis=0) * (cells / max(end - start, 1e-6))
