"""Samples whose pixels say where each object is, for an independent look.

Object number c is drawn in colour channel c, so a moved image shows all moved masks,
however the sample's own masks are moved.
"""

import numpy as np
import tensorflow as tf

from kvision.data.masks import crop_pixels
from kvision.ops.masks import paste_masks

CELLS = 56


def three_shapes(height: int = 96, width: int = 128) -> np.ndarray:
    """A ring, a bar that leans and a triangle: (3, H, W) bool."""
    y, x = np.mgrid[:height, :width] + 0.5
    radius = np.hypot(x - 40, y - 44)
    ring = (radius < 24) & (radius > 9)
    bar = (np.abs(x - y - 30) < 14) & (np.abs(x + y - 120) < 52)
    triangle = (y > 55) & (y < 90) & (np.abs(x - 96) < (y - 50) * 0.6)
    return np.stack([ring, bar, triangle])


def extents(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def sample_of(masks: np.ndarray, padding: int = 2, cells: int = CELLS) -> dict:
    """Draw a sample of three masks, with a padding row in front and more behind."""
    boxes = np.stack([extents(mask) for mask in masks])
    grids = np.stack(
        [
            crop_pixels(
                mask[int(y1) : int(y2), int(x1) : int(x2)],
                (0.0, 0.0, float(x2 - x1), float(y2 - y1)),
                cells,
            )
            for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True)
        ]
    )
    rows = ((1, padding), (0, 0))
    image = masks.transpose(1, 2, 0).astype(np.uint8) * 255
    return {
        "images": tf.constant(image),
        "gt_boxes": tf.constant(np.pad(boxes, rows)),
        "gt_labels": tf.constant(
            np.pad(np.arange(3, dtype=np.int32), rows[0], constant_values=-1)
        ),
        "gt_masks": tf.constant(np.pad(grids, (*rows, (0, 0)))),
    }


def check_sample(sample: dict, tolerance: float = 1.0, iou: float = 0.9) -> int:
    """Compare boxes and masks with what the image shows; returns the objects seen."""
    image = sample["images"].numpy()
    labels = sample["gt_labels"].numpy()
    boxes = sample["gt_boxes"].numpy()
    grids = sample["gt_masks"].numpy()
    is_padding = labels < 0
    assert not boxes[is_padding].any()
    assert not grids[is_padding].any()
    size = image.shape[:2]
    for row in np.flatnonzero(~is_padding):
        shown = image[..., labels[row]] > 127
        assert shown.any(), f"object {labels[row]} has a box but is not to be seen"
        np.testing.assert_allclose(boxes[row], extents(shown), atol=tolerance)
        grid = tf.constant(grids[row : row + 1].astype(np.float32) / 255)
        pasted = np.asarray(paste_masks(grid, boxes[row : row + 1], size))[0] >= 0.5
        if shown.sum() > 60:
            overlap = (pasted & shown).sum() / (pasted | shown).sum()
            assert overlap > iou, f"object {labels[row]}: IoU {overlap:.3f}"
    for label in set(range(3)) - set(labels.tolist()):
        shown = image[..., label] > 127
        if shown.any():  # what is gone may leave a sliver
            x1, y1, x2, y2 = extents(shown)
            assert min(x2 - x1, y2 - y1) <= 2, f"object {label} lost its row"
    return int((~is_padding).sum())
