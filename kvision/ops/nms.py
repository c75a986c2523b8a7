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
        indices: (B, M) int32 tensor of rows of `boxes`, scores descending, 0 as filling.
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

    def one_image(inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        indices, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=inputs[0],
            scores=inputs[1],
            max_output_size=max_outputs,
            iou_threshold=iou_threshold,
            score_threshold=_DISCARDED / 2,
            pad_to_max_output_size=True,
        )
        return tf.ensure_shape(indices, (max_outputs,)), tf.reshape(count, ())

    if boxes.shape[0] == 1:  # TFLite: no loop around the builtin
        indices, count = one_image((boxes[0], scores[0]))
        indices, count = indices[None], count[None]
    else:
        indices, count = tf.map_fn(
            one_image, (boxes, scores), fn_output_signature=(tf.int32, tf.int32)
        )
    is_kept = tf.range(max_outputs)[None, :] < count[:, None]
    return tf.where(is_kept, indices, 0), is_kept


def portable_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_outputs: int
) -> tuple[Tensor, Tensor]:
    """Suppress greedily with `keras.ops`: one box of every image a turn.

    Args:
        boxes: (B, N, 4) float32 tensor.
        scores: (B, N) float32 tensor; -1e9 discards a box.
        iou_threshold: largest overlap that two kept boxes may have.
        max_outputs: number of boxes M to keep.

    Returns:
        indices and is_kept as in `grouped_nms`.
    """
    slots = ops.arange(max_outputs, dtype="int32")[None, :]

    def turn(step: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        remaining, indices, is_kept = state
        best = ops.cast(ops.argmax(remaining, axis=1), "int32")[:, None]
        best_score = ops.take_along_axis(remaining, best, axis=1)
        best_box = ops.take_along_axis(boxes, best[..., None], axis=1)
        found = best_score > _DISCARDED / 2
        overlap = box_ops.iou(best_box, boxes)[:, 0]
        row = ops.arange(boxes.shape[1], dtype="int32")[None, :]
        dropped = ops.logical_or(overlap > iou_threshold, row == best)
        remaining = ops.where(dropped, _DISCARDED, remaining)
        here = ops.logical_and(slots == step, found)
        return remaining, ops.where(here, best, indices), ops.logical_or(is_kept, here)

    empty = ops.zeros_like(scores[:, :1], dtype="int32") + ops.zeros_like(slots)
    state = (scores, empty, empty > 0)
    _, indices, is_kept = ops.fori_loop(0, max_outputs, turn, state)
    return indices, is_kept
