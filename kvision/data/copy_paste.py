"""Pasting objects of one sample over another, masks and boxes kept true."""

import tensorflow as tf

from kvision.data.warp import Sample, extents, pad_rows, regrid, rows_in_use
from kvision.ops.masks import paste_masks

__all__ = ["paste"]


def paste(
    sample: Sample, donor: Sample, is_picked: tf.Tensor, max_objects: int
) -> Sample:
    """Paste objects over a sample, at the places they have in their own.

    Args:
        sample: dict with `images` (H, W, 3), `gt_boxes` (G, 4), `gt_labels` (G,) and
            `gt_masks` (G, m, m), padded.
        donor: another one of the same shapes.
        is_picked: (G,) bool tensor, which objects of the donor to take; crowd regions
            and padding are never taken.
        max_objects: at most so many, the first of the picked ones.

    Returns:
        The sample with as many rows as before. Objects that find no free row are not
        pasted, so that none is ever in the picture without a label.
    """
    if "gt_masks" not in sample:
        raise ValueError("CopyPaste needs gt_masks: boxes alone say not what to copy.")
    used = rows_in_use(sample["gt_boxes"], sample["gt_labels"])
    capacity = sample["gt_labels"].shape[0]
    free = tf.minimum(capacity - tf.reduce_sum(tf.cast(used, tf.int32)), max_objects)
    rows = tf.where(is_picked & (donor["gt_labels"] >= 0))[:, 0][:free]
    size = sample["images"].shape[:2]
    return tf.cond(
        tf.size(rows) > 0,
        lambda: _paste_rows(sample, donor, rows, (size[0], size[1])),
        lambda: dict(sample),
    )


def _paste_rows(
    sample: Sample, donor: Sample, rows: tf.Tensor, size: tuple[int, int]
) -> Sample:
    boxes = tf.gather(donor["gt_boxes"], rows)
    masks = tf.gather(donor["gt_masks"], rows)
    pasted = paste_masks(tf.cast(masks, tf.float32) / 255.0, boxes, size)
    covered = tf.reduce_any(pasted >= 0.5, axis=0)
    uncovered = _uncover(sample, covered)
    merged = {
        **sample,
        "images": tf.where(covered[..., None], donor["images"], sample["images"]),
        "gt_boxes": tf.concat([uncovered["gt_boxes"], boxes], axis=0),
        "gt_masks": tf.concat([uncovered["gt_masks"], masks], axis=0),
        "gt_labels": tf.concat(
            [uncovered["gt_labels"], tf.gather(donor["gt_labels"], rows)], axis=0
        ),
    }
    if "image_sizes" in sample:
        # Objects may land where this image has only padding.
        sizes = tf.maximum(sample["image_sizes"], donor["image_sizes"])
        merged["image_sizes"] = sizes
    return pad_rows(merged, sample["gt_labels"].shape[0])


def _uncover(sample: Sample, covered: tf.Tensor) -> Sample:
    """Take what is covered from masks, and shrink boxes to what is left of them."""
    rows = tf.where(rows_in_use(sample["gt_boxes"], sample["gt_labels"]))[:, 0]
    boxes, labels, masks = (
        tf.gather(sample[name], rows) for name in ("gt_boxes", "gt_labels", "gt_masks")
    )
    hidden = _read_on_grids(covered, boxes, masks.shape[-1])
    left = tf.cast(tf.round(tf.cast(masks, tf.float32) * (1.0 - hidden)), masks.dtype)
    changed = tf.reduce_any(left != masks, axis=(1, 2)) & (labels >= 0)
    tight = tf.where(changed[:, None], extents(left, boxes), boxes)
    is_gone = changed & tf.reduce_any(tight[:, 2:] - tight[:, :2] < 1.0, axis=1)
    left = tf.where(changed[:, None, None], regrid(left, boxes, tight), masks)
    return {
        "gt_boxes": tf.where(is_gone[:, None], 0.0, tight),
        "gt_labels": tf.where(is_gone, -1, labels),
        "gt_masks": tf.where(is_gone[:, None, None], tf.zeros_like(left), left),
    }


def _read_on_grids(covered: tf.Tensor, boxes: tf.Tensor, cells: int) -> tf.Tensor:
    """Sample an (H, W) mask at the centres of cells x cells grids over (G, 4) boxes."""
    height, width = covered.shape
    step = (boxes[:, 2:] - boxes[:, :2]) / cells / 2
    first, last = boxes[:, :2] + step - 0.5, boxes[:, 2:] - step - 0.5
    # The op wants y, x of the outermost samples, as parts of the last pixel's number.
    windows = tf.concat([tf.reverse(first, [1]), tf.reverse(last, [1])], axis=1)
    windows /= tf.constant([height - 1, width - 1] * 2, tf.float32)
    samples = tf.image.crop_and_resize(
        tf.cast(covered, tf.float32)[None, ..., None],
        tf.clip_by_value(windows, 0.0, 1.0),
        tf.zeros_like(boxes[:, 0], tf.int32),
        (cells, cells),
    )
    return samples[..., 0]
