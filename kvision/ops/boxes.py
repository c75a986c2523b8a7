"""Boxes: (x1, y1, x2, y2) in absolute pixels, x2 and y2 exclusive, float32.

Pixel i spans the interval [i, i + 1), so a box around the first two pixels of a row is
(0, 0, 2, 1) and its area is exactly 2. Every function takes leading batch dimensions.
"""

import math
from typing import Any

from keras import ops

__all__ = [
    "MAX_LOG_SCALE",
    "area",
    "clip",
    "coverage",
    "decode_deltas",
    "encode_deltas",
    "from_inclusive",
    "from_xywh",
    "iou",
    "to_inclusive",
    "to_xywh",
]

Tensor = Any

# Deltas of width and height are limited to one growth by 1000 / 16: the largest box
# (1000 px) from the smallest anchor (16 px) of the original Faster R-CNN. Without the
# limit an untrained head overflows exp().
MAX_LOG_SCALE = math.log(1000.0 / 16)


def from_xywh(boxes: Tensor) -> Tensor:
    """Convert (x, y, width, height) boxes, as in COCO files, to (x1, y1, x2, y2).

    Args:
        boxes: (..., 4) float tensor in pixels.

    Returns:
        (..., 4) tensor of corners in the same unit.
    """
    origin, size = boxes[..., :2], boxes[..., 2:]
    return ops.concatenate([origin, origin + size], axis=-1)


def to_xywh(boxes: Tensor) -> Tensor:
    """Convert (x1, y1, x2, y2) boxes to (x, y, width, height).

    Args:
        boxes: (..., 4) float tensor in pixels.

    Returns:
        (..., 4) tensor of corner and size in the same unit.
    """
    origin, corner = boxes[..., :2], boxes[..., 2:]
    return ops.concatenate([origin, corner - origin], axis=-1)


def to_inclusive(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Express boxes as matterport's Mask R-CNN: up to the index of their last pixel.

    These numbers are stretched so that the whole image is (0, 0, width, height) as
    before: divided by its size they are matterport's relative boxes.

    Args:
        boxes: (..., 4) float tensor in pixels.
        image_size: (height, width) in pixels.

    Returns:
        (..., 4) tensor in stretched pixels.

    Source: matterport/Mask_RCNN, mrcnn/utils.py, norm_boxes.
    """
    shift, scale = _inclusive(image_size, boxes.dtype)
    return (boxes - shift) * scale


def from_inclusive(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return from `to_inclusive`.

    Args:
        boxes: (..., 4) float tensor in stretched pixels.
        image_size: (height, width) in pixels.

    Returns:
        (..., 4) tensor in pixels.
    """
    shift, scale = _inclusive(image_size, boxes.dtype)
    return boxes / scale + shift


def _inclusive(image_size: tuple[int, int], dtype: Any) -> tuple[Tensor, Tensor]:
    """Make what is subtracted from (x1, y1, x2, y2), and the factors after it."""
    height, width = image_size
    scale = 2 * [width / (width - 1), height / (height - 1)]
    return (
        ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0], dtype=dtype),
        ops.convert_to_tensor(scale, dtype=dtype),
    )


def area(boxes: Tensor) -> Tensor:
    """Compute the area of each box; reversed boxes have area 0.

    Args:
        boxes: (..., 4) float tensor in pixels.

    Returns:
        (...) tensor of square pixels.
    """
    size = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return size[..., 0] * size[..., 1]


def clip(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Clip boxes to the image.

    Args:
        boxes: (..., 4) float tensor in pixels.
        image_size: (height, width) in pixels.

    Returns:
        (..., 4) tensor with x in [0, width] and y in [0, height].
    """
    height, width = image_size
    limit = ops.convert_to_tensor([width, height, width, height], dtype=boxes.dtype)
    return ops.minimum(ops.maximum(boxes, 0.0), limit)


def _intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Compute the (..., N, M) areas shared by each pair of N boxes and M others."""
    x1, y1, x2, y2 = (boxes[..., :, i, None] for i in range(4))
    u1, v1, u2, v2 = (others[..., None, :, i] for i in range(4))
    width = ops.minimum(x2, u2) - ops.maximum(x1, u1)
    height = ops.minimum(y2, v2) - ops.maximum(y1, v1)
    return ops.maximum(width, 0.0) * ops.maximum(height, 0.0)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Compute the intersection over union of each pair of boxes.

    Args:
        boxes: (..., N, 4) float tensor in pixels.
        others: (..., M, 4) float tensor in pixels.

    Returns:
        (..., N, M) tensor in [0, 1]; 0 where both boxes are empty.
    """
    intersection = _intersection(boxes, others)
    union = area(boxes)[..., :, None] + area(others)[..., None, :] - intersection
    return intersection / ops.maximum(union, 1e-9)


def coverage(boxes: Tensor, regions: Tensor) -> Tensor:
    """Compute which part of each box lies inside each region.

    Args:
        boxes: (..., N, 4) float tensor in pixels.
        regions: (..., M, 4) float tensor in pixels.

    Returns:
        (..., N, M) tensor in [0, 1]: intersection over the area of the box.
    """
    return _intersection(boxes, regions) / ops.maximum(area(boxes), 1e-9)[..., None]


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def encode_deltas(
    boxes: Tensor,
    references: Tensor,
    delta_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Tensor:
    """Express boxes as offsets from reference boxes.

    Args:
        boxes: (..., 4) float tensor in pixels. Empty boxes give finite deltas.
        references: (..., 4) float tensor in pixels: anchors or RoIs.
        delta_weights: factors of (dx, dy, dw, dh).

    Returns:
        (..., 4) tensor of (dx, dy, dw, dh): shift of the centre in units of the
        reference's size, logarithm of the ratio of sizes.

    Source: Girshick et al. 2014, R-CNN, Eqs. 6-9 of appendix C; weights as in
    torchvision `models/detection/_utils.py`.
    """
    centre, size = _centre_and_size(boxes)
    reference_centre, reference_size = _centre_and_size(references)
    reference_size = ops.maximum(reference_size, 1e-6)
    shift = (centre - reference_centre) / reference_size
    log_scale = ops.log(ops.maximum(size, 1e-6) / reference_size)
    deltas = ops.concatenate([shift, log_scale], axis=-1)
    return deltas * ops.convert_to_tensor(delta_weights, dtype=deltas.dtype)


def decode_deltas(
    deltas: Tensor,
    references: Tensor,
    delta_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Tensor:
    """Apply offsets to reference boxes: the inverse of `encode_deltas`.

    Args:
        deltas: (..., 4) float tensor of (dx, dy, dw, dh); dw and dh are limited to
            `MAX_LOG_SCALE` after division by their weights.
        references: (..., 4) float tensor in pixels, broadcast against `deltas`.
        delta_weights: factors the deltas were multiplied by.

    Returns:
        (..., 4) tensor of boxes in pixels, not clipped.
    """
    deltas = deltas / ops.convert_to_tensor(delta_weights, dtype=deltas.dtype)
    centre, size = _centre_and_size(references)
    centre = centre + deltas[..., :2] * size
    size = size * ops.exp(ops.minimum(deltas[..., 2:], MAX_LOG_SCALE))
    return ops.concatenate([centre - 0.5 * size, centre + 0.5 * size], axis=-1)
