"""Instance masks as small grids over boxes: crop them for training, paste them back.

Both directions are two products with matrices of interpolation weights, one for rows
and one for columns. They have static shapes and no gathers.
"""

from typing import Any

from keras import ops

__all__ = ["crop_masks", "paste_masks", "paste_masks_integer"]

Tensor = Any


def _triangle(positions: Tensor, size: int) -> Tensor:
    """Make bilinear weights: (..., P) positions on a grid -> (..., P, size)."""
    grid = ops.arange(size, dtype="float32")
    return ops.maximum(1.0 - ops.abs(positions[..., None] - grid), 0.0)


def _resample(masks: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply row weights (..., P, h) and column weights (..., Q, w) to (..., h, w)."""
    return ops.matmul(ops.matmul(rows, masks), ops.swapaxes(columns, -1, -2))


def crop_masks(masks: Tensor, mask_boxes: Tensor, rois: Tensor, size: int) -> Tensor:
    """Sample box-relative masks on a grid over other boxes: the mask head's targets.

    Args:
        masks: (..., h, w) float tensor in [0, 1], each laid over its own box.
        mask_boxes: (..., 4) float tensor in pixels: the boxes of the masks.
        rois: (..., 4) float tensor in pixels: where to sample.
        size: number of cells m along each side of a RoI.

    Returns:
        (..., m, m) float tensor in [0, 1]: bilinear samples at the centres of the
        cells; 0 outside the mask's box.

    Source: He et al. 2017, Mask R-CNN, section 3 (the target is the intersection of a
    RoI and its mask). detectron2 rasterises polygons and torchvision pools bitmaps at
    this point; on a mask crop of twice the resolution the three agree but for edges.
    """

    def weights(low: int, high: int, cells: int) -> Tensor:
        fraction = (ops.arange(size, dtype="float32") + 0.5) / size
        start, end = rois[..., low, None], rois[..., high, None]
        first, last = mask_boxes[..., low, None], mask_boxes[..., high, None]
        points = start + (end - start) * fraction
        position = (points - first) / ops.maximum(last - first, 1e-6)
        inside = ops.logical_and(position >= 0.0, position <= 1.0)
        position = ops.clip(position * cells - 0.5, 0.0, cells - 1.0)
        return _triangle(position, cells) * ops.cast(inside, "float32")[..., None]

    height, width = masks.shape[-2:]
    return _resample(masks, weights(1, 3, height), weights(0, 2, width))


def paste_masks(masks: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Lay masks over their boxes in the image, exact to half a pixel.

    The centre of each pixel is looked up in the mask; beyond the outermost centres of
    cells the mask fades to 0. Threshold the result at 0.5.

    Args:
        masks: (..., h, w) float tensor in [0, 1].
        boxes: (..., 4) float tensor in pixels.
        image_size: (height, width) of the image in pixels.

    Returns:
        (..., height, width) float tensor in [0, 1].

    Source: the arithmetic of detectron2 `layers/mask_ops.py`.
    """

    def weights(low: int, high: int, cells: int, pixels: int) -> Tensor:
        centres = ops.arange(pixels, dtype="float32") + 0.5
        start, end = boxes[..., low, None], boxes[..., high, None]
        position = (centres - start) / ops.maximum(end - start, 1e-6)
        return _triangle(position * cells - 0.5, cells)

    height, width = masks.shape[-2:]
    rows = weights(1, 3, height, image_size[0])
    columns = weights(0, 2, width, image_size[1])
    return _resample(masks, rows, columns)


def paste_masks_integer(
    masks: Tensor, boxes: Tensor, image_size: tuple[int, int]
) -> Tensor:
    """Lay masks over boxes cut to whole pixels: torchvision's (and Detectron's) way.

    Kept to compare with torchvision; it is worth about half a point of mask AP less.
    Torchvision's masks are those above 0.5.

    Args:
        masks: (..., m, m) float tensor in [0, 1].
        boxes: (..., 4) float tensor in pixels.
        image_size: (height, width) of the image in pixels.

    Returns:
        (..., height, width) float tensor in [0, 1].

    Source: torchvision `models/detection/roi_heads.py`, paste_masks_in_image.
    """
    cells = masks.shape[-1] + 2  # a border of one empty cell
    masks = ops.pad(masks, [(0, 0)] * (len(masks.shape) - 2) + [(1, 1), (1, 1)])

    def weights(low: int, high: int, pixels: int) -> Tensor:
        start, end = boxes[..., low, None], boxes[..., high, None]
        centre, half = (start + end) / 2, (end - start) / 2 * (cells / (cells - 2))
        # Truncation towards zero, as a cast to an integer does.
        first = ops.cast(ops.cast(centre - half, "int32"), "float32")
        last = ops.cast(ops.cast(centre + half, "int32"), "float32")
        extent = ops.maximum(last - first + 1.0, 1.0)
        pixel = ops.arange(pixels, dtype="float32")
        inside = ops.logical_and(pixel >= first, pixel < first + extent)
        position = (pixel - first + 0.5) / extent * cells - 0.5
        position = ops.clip(position, 0.0, cells - 1.0)
        return _triangle(position, cells) * ops.cast(inside, "float32")[..., None]

    rows, columns = weights(1, 3, image_size[0]), weights(0, 2, image_size[1])
    return _resample(masks, rows, columns)
