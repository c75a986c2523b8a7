"""Non-maximum suppression with static shapes: padded, never empty."""

from typing import Any

import keras
from keras import ops

from kvision.ops import boxes as box_ops

__all__ = ["grouped_nms"]

Tensor = Any

_DISCARDED = -1e9


def grouped_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    is_candidate: Tensor,
    num_groups: int,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Tensor, Tensor]:
    """Keep the best boxes of each group (class or pyramid level) of each image.

    Boxes of different groups are moved apart so that one suppression serves all. They
    are laid out on a square of groups, not in a row, to keep the coordinates small and
    with them the rounding of float32.

    Args:
        boxes: (B, N, 4) float32 tensor in pixels, N >= 1.
        scores: (B, N) float32 tensor of any range.
        groups: (B, N) or (1, N) int32 tensor in [0, num_groups).
        is_candidate: (B, N) bool tensor; other boxes neither stay nor suppress.
        num_groups: number of groups.
        iou_threshold: boxes that overlap a better one by more than this are dropped.
        max_outputs: number of boxes M to keep over all groups of an image.

    Returns:
        indices: (B, M) int32 tensor of rows of `boxes`, best first, 0 as filling.
        is_kept: (B, M) bool tensor, False for filling.
    """
    columns = int(num_groups**0.5 + 0.999)
    spread = ops.max(ops.where(is_candidate[..., None], boxes, 0.0)) + 1.0
    column, row = groups % columns, groups // columns
    shift = ops.cast(ops.stack([column, row, column, row], axis=-1), boxes.dtype)
    boxes = boxes + shift * spread
    scores = ops.where(is_candidate, scores, _DISCARDED)
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_nms(boxes, scores, iou_threshold, max_outputs)
    return portable_nms(boxes, scores, iou_threshold, max_outputs)


def _tensorflow_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_outputs: int
) -> tuple[Tensor, Tensor]:
    """Run the kernel that has CPU, GPU, XLA and TFLite builtin forms.

    It expects (y1, x1, y2, x2), but overlap does not change when x and y are swapped.
    """
    import tensorflow as tf

    # XLA's form cannot return more boxes than it is given.
    slots = min(max_outputs, boxes.shape[1])

    def one_image(inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        indices, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=inputs[0],
            scores=inputs[1],
            max_output_size=slots,
            iou_threshold=iou_threshold,
            score_threshold=_DISCARDED / 2,
            pad_to_max_output_size=True,
        )
        return tf.ensure_shape(indices, (slots,)), tf.reshape(count, ())

    if boxes.shape[0] == 1:  # TFLite: no loop around the builtin
        indices, count = one_image((boxes[0], scores[0]))
        indices, count = indices[None], count[None]
    else:
        indices, count = tf.map_fn(
            one_image, (boxes, scores), fn_output_signature=(tf.int32, tf.int32)
        )
    is_kept = tf.range(slots)[None, :] < count[:, None]
    indices = tf.where(is_kept, indices, 0)
    if slots < max_outputs:
        filling = [(0, 0), (0, max_outputs - slots)]
        indices, is_kept = tf.pad(indices, filling), tf.pad(is_kept, filling)
    return indices, is_kept


def portable_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_outputs: int
) -> tuple[Tensor, Tensor]:
    """Suppress greedily with `keras.ops`, all boxes at once.

    A box stays if no better box that stays overlaps it. Starting from all boxes, that
    rule is applied until nothing changes: after as many rounds as the longest chain of
    boxes that drop each other, usually below twenty, and never wrong.

    Args:
        boxes: (B, N, 4) float32 tensor.
        scores: (B, N) float32 tensor; -1e9 discards a box.
        iou_threshold: largest overlap that two kept boxes may have.
        max_outputs: number of boxes M to keep.

    Returns:
        indices and is_kept as in `grouped_nms`.
    """
    number = boxes.shape[1]
    scores, order = ops.top_k(scores, k=number)
    boxes = ops.take_along_axis(boxes, order[..., None], axis=1)
    rank = ops.arange(number, dtype="int32")
    better = rank[:, None] < rank[None, :]
    drops = ops.logical_and(box_ops.iou(boxes, boxes) > iou_threshold, better)
    drops = ops.cast(drops, "float32")
    is_candidate = scores > _DISCARDED / 2

    def unstable(stays: Tensor, previous: Tensor) -> Tensor:
        return ops.any(stays != previous)

    def apply_rule(stays: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        votes = ops.matmul(ops.cast(stays, "float32")[:, None, :], drops)[:, 0]
        return ops.logical_and(is_candidate, votes == 0), stays

    stays, _ = ops.while_loop(
        unstable, apply_rule, apply_rule(is_candidate, is_candidate)
    )
    # The kept ones first, in their order: ranks are unique, so top_k cannot tie.
    places = ops.where(stays, -rank, -number - rank)
    slots = min(max_outputs, number)
    _, kept = ops.top_k(ops.cast(places, "float32"), k=slots)
    is_kept = ops.take_along_axis(stays, kept, axis=1)
    indices = ops.where(is_kept, ops.take_along_axis(order, kept, axis=1), 0)
    filling = [(0, 0), (0, max_outputs - slots)]
    return ops.pad(ops.cast(indices, "int32"), filling), ops.pad(is_kept, filling)
