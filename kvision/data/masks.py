"""COCO segmentations: checks that keep pycocotools alive, extents, crops over boxes.

pycocotools' C code is killed by a coordinate that is not finite or far away, and
reads past the end of a broken RLE. So `parse_segmentation` looks at every number
first, with NumPy, and whatever it returns is safe.

A mask is what pycocotools rasterises, since that is what COCO evaluation compares
with. A crop of it holds, in each cell of a grid laid over a box, the part of the cell
that is covered. Pasted back from 56 x 56 cells, the masks of COCO have a mean IoU of
0.998 with the original (0.987 where polygons are rasterised on the grid itself).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

__all__ = [
    "Segmentation",
    "SegmentationError",
    "crop_mask",
    "crop_pixels",
    "decompress",
    "mask_extents",
    "parse_segmentation",
]

Box = tuple[float, float, float, float]

_MAX_POINTS = 1_000_000
_THIN = 2.0  # pixels; a polygon thicker than this covers the centre of some pixel


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A checked segmentation: either polygons or an RLE.

    Attributes:
        polygons: arrays (x0, y0, x1, y1, ...) in pixels of the image.
        counts: compressed RLE counts of the whole image, None for polygons.
        size: (height, width) of the image in pixels.
        box: (x1, y1, x2, y2) extents in pixels; all 0 where nothing is covered.
    """

    polygons: tuple[np.ndarray, ...]
    counts: bytes | None
    size: tuple[int, int]
    box: Box

    def is_empty(self) -> bool:
        """Whether it covers no pixel: a polygon can be too thin for any."""
        x1, y1, x2, y2 = self.box
        if min(x2 - x1, y2 - y1) >= _THIN or self.counts is not None:
            return x2 <= x1
        left, top = math.floor(x1), math.floor(y1)
        window = (top, left, math.ceil(y2) + 1, math.ceil(x2) + 1)
        return not _rasterise(self, *window).any()


class SegmentationError(ValueError):
    """What is wrong with a segmentation, and its code in the list of faults."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse_segmentation(value: Any, size: tuple[int, int]) -> Segmentation:
    """Check a segmentation of COCO's json.

    Args:
        value: list of polygons, or a dict with `size` and `counts` (a list of run
            lengths, or pycocotools' compressed string).
        size: (height, width) of the image in pixels.

    Returns:
        The segmentation, safe to rasterise.

    Raises:
        SegmentationError: it is malformed, not finite or far outside.
    """
    if isinstance(value, dict):
        return _parse_rle(value, size)
    if isinstance(value, list) and value:
        polygons = tuple(_parse_polygon(polygon, size) for polygon in value)
        return Segmentation(polygons, None, size, _polygon_extents(polygons))
    raise SegmentationError(
        "B11", f"segmentation is no list of polygons and no RLE but {value!r:.60}"
    )


def crop_mask(segmentation: Segmentation, box: np.ndarray, cells: int) -> np.ndarray:
    """Measure how much of each cell of a grid over a box the mask covers.

    Args:
        segmentation: as from `parse_segmentation`.
        box: (4,) x1, y1, x2, y2 in pixels of the image, inside it, not empty.
        cells: number of cells along both sides.

    Returns:
        (cells, cells) uint8 array, 255 where a cell is covered.
    """
    x1, y1, x2, y2 = (float(edge) for edge in box)
    left, top = math.floor(x1), math.floor(y1)
    right, bottom = math.ceil(x2), math.ceil(y2)
    pixels = _rasterise(segmentation, top, left, bottom, right)
    return crop_pixels(pixels, (x1 - left, y1 - top, x2 - left, y2 - top), cells)


def crop_pixels(pixels: np.ndarray, box: Box, cells: int) -> np.ndarray:
    """Measure how much of each cell of a grid over a box is covered by pixels.

    Args:
        pixels: (H, W) array of 0 and 1.
        box: x1, y1, x2, y2 inside it.
        cells: number of cells along both sides.

    Returns:
        (cells, cells) uint8 array, 255 where a cell is covered.
    """
    x1, y1, x2, y2 = box
    covered = _mean_over_cells(pixels, y1, y2, cells)
    covered = _mean_over_cells(covered.T, x1, x2, cells).T
    return np.rint(covered * 255).clip(0, 255).astype(np.uint8)


def mask_extents(counts: np.ndarray, size: tuple[int, int]) -> Box:
    """Find the box of an RLE.

    Args:
        counts: run lengths of 0 and 1 in turn, column by column, beginning with 0.
        size: (height, width) of the image in pixels.

    Returns:
        x1, y1, x2, y2 in pixels; zeros where nothing is covered.
    """
    ends = np.cumsum(counts)
    first = ends[0::2][: len(counts) // 2]
    last = ends[1::2] - 1
    first, last = first[last >= first], last[last >= first]
    if not first.size:
        return (0.0, 0.0, 0.0, 0.0)
    height = size[0]
    columns, end_columns = first // height, last // height
    if (columns != end_columns).any():  # a run that turns a corner touches both edges
        top, bottom = 0, height
    else:
        top, bottom = int((first % height).min()), int((last % height).max()) + 1
    return (
        float(columns.min()),
        float(top),
        float(end_columns.max() + 1),
        float(bottom),
    )


def decompress(counts: bytes) -> np.ndarray:
    """Decode pycocotools' compressed RLE counts; independent of its C code.

    Each number is written in groups of 5 bits, the low ones first, in characters
    from "0" on; bit 6 says that more follow. From the fourth number on it is the
    difference to the number two before (cocodataset/cocoapi `common/maskApi.c`).
    """
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not groups.size or ((groups < 0) | (groups > 63)).any() or groups[-1] & 32:
        raise SegmentationError("B13", f"no compressed RLE counts: {counts[:40]!r}")
    is_last = groups & 32 == 0
    starts = np.concatenate([[0], np.flatnonzero(is_last)[:-1] + 1])
    position = np.arange(len(groups)) - np.repeat(
        starts, np.diff([*starts, len(groups)])
    )
    if position.max() > 8:
        raise SegmentationError("B13", "an RLE count is larger than any image")
    values = np.add.reduceat((groups & 31) << (5 * position), starts)
    negative = groups[is_last] & 16 != 0
    values -= np.where(negative, 1 << (5 * (position[is_last] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _parse_polygon(polygon: Any, size: tuple[int, int]) -> np.ndarray:
    try:
        points = np.asarray(polygon, np.float64)
    except (TypeError, ValueError):
        points = np.zeros((0, 0))
    if points.ndim != 1:
        raise SegmentationError("B11", f"no polygon of numbers: {polygon!r:.60}")
    if len(points) < 6 or len(points) % 2:
        raise SegmentationError(
            "B11",
            f"a polygon has {len(points)} numbers; x, y of 3 or more points expected",
        )
    if len(points) > 2 * _MAX_POINTS:
        raise SegmentationError("B12", f"a polygon of {len(points) // 2} points")
    low, high = points.min(), points.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise SegmentationError("B12", "a polygon has a coordinate that is not finite")
    reach = max(size)
    if low < -reach or high > 2 * reach:
        raise SegmentationError(
            "B12",
            f"a polygon reaches from {low:g} to {high:g}, far outside the image of "
            f"{size[1]} x {size[0]} pixels",
        )
    return points


def _polygon_extents(polygons: tuple[np.ndarray, ...]) -> Box:
    points = polygons[0] if len(polygons) == 1 else np.concatenate(polygons)
    x, y = points[0::2], points[1::2]
    return (float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def _parse_rle(value: dict[str, Any], size: tuple[int, int]) -> Segmentation:
    if list(value.get("size", ())) != list(size):
        raise SegmentationError(
            "B13",
            f"RLE of size {value.get('size')} in an image of (height, width) {size}",
        )
    counts = value.get("counts")
    runs = _run_lengths(counts)
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise SegmentationError(
            "B13",
            f"RLE counts sum to {runs.sum()}, the image has {size[0] * size[1]} pixels",
        )
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    elif not isinstance(counts, bytes):
        rle = {"size": list(size), "counts": runs.tolist()}
        counts = coco_mask.frPyObjects(rle, *size)["counts"]
    return Segmentation((), counts, size, mask_extents(runs, size))


def _run_lengths(counts: Any) -> np.ndarray:
    if isinstance(counts, str | bytes):
        try:
            data = counts.encode("ascii") if isinstance(counts, str) else counts
        except UnicodeEncodeError:
            raise SegmentationError("B13", "RLE counts are not ASCII") from None
        return decompress(data)
    try:
        runs = np.asarray(counts)
    except ValueError:
        runs = np.zeros((0, 0))
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or not runs.size:
        raise SegmentationError("B13", f"no RLE counts: {counts!r:.60}")
    return runs.astype(np.int64)


def _rasterise(
    segmentation: Segmentation, top: int, left: int, bottom: int, right: int
) -> np.ndarray:
    """Rasterise the part of a mask that lies in a window of whole pixels."""
    if segmentation.counts is not None:
        rle = {"size": segmentation.size, "counts": segmentation.counts}
        return coco_mask.decode(rle)[top:bottom, left:right]
    # Whole-pixel shifts do not change what pycocotools makes of a polygon.
    shift = np.array([left, top])
    polygons = [
        (points.reshape(-1, 2) - shift).ravel() for points in segmentation.polygons
    ]
    rles = coco_mask.frPyObjects(polygons, bottom - top, right - left)
    masks = coco_mask.decode(rles)
    return masks[..., 0] if len(polygons) == 1 else masks.any(axis=-1)


def _mean_over_cells(
    values: np.ndarray, start: float, end: float, cells: int
) -> np.ndarray:
    """Average rows of pixels over equal cells that lie between start and end.

    A difference of running sums; the last pixel before an edge counts in part. (As a
    product of matrices this would wake BLAS' threads for microseconds of work.)
    """
    # Laid out in memory as the values are; the other way takes twice as long.
    order: Literal["F", "C"] = "F" if values.flags.f_contiguous else "C"
    sums = np.zeros((len(values) + 1, values.shape[1]), np.float32, order)
    np.cumsum(values, axis=0, out=sums[1:])
    step = (end - start) / cells
    edges = start + step * np.arange(cells + 1, dtype=np.float32)
    whole = np.minimum(edges.astype(np.int64), len(values) - 1)
    part = (edges - whole)[:, None]
    before = sums[whole] * (1 - part) + sums[whole + 1] * part
    return np.diff(before, axis=0) / step
