"""Proposals: the best anchors of an image, moved, clipped and thinned out."""

from typing import Any

import keras
from keras import ops

from kvision.ops import boxes as box_ops
from kvision.ops.gathering import gather_rows
from kvision.ops.nms import grouped_nms

__all__ = ["ProposalSelection"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class ProposalSelection(keras.layers.Layer):
    """Turn the RPN's predictions into a fixed number of proposals.

    The anchors with the highest logits of each level are decoded and clipped; boxes
    below `min_size` are dropped; suppression runs within each level; the best of all
    levels are left. Or all levels are treated as one. No gradient flows through.

    Args:
        image_size: (height, width) of the model input in pixels.
        pre_nms_top_k: anchors of each level that enter the suppression, or of all.
        post_nms_top_k: proposals of an image.
        nms_iou_threshold: overlap above which the weaker box is dropped.
        min_size: shortest side in pixels.
        per_level: whether each level is treated apart.
        delta_weights: factors of the deltas.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: torchvision `models/detection/rpn.py`, filter_proposals; with all levels as
    one, matterport/Mask_RCNN, mrcnn/model.py, ProposalLayer.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        pre_nms_top_k: int = 1000,
        post_nms_top_k: int = 1000,
        nms_iou_threshold: float = 0.7,
        min_size: float = 1e-3,
        per_level: bool = True,
        delta_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.image_size = tuple(image_size)
        self.pre_nms_top_k = pre_nms_top_k
        self.post_nms_top_k = post_nms_top_k
        self.nms_iou_threshold = nms_iou_threshold
        self.min_size = min_size
        self.per_level = per_level
        self.delta_weights = tuple(delta_weights)

    def call(
        self,
        objectness_logits: dict[str, Tensor],
        anchor_deltas: dict[str, Tensor],
        anchors: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Select proposals.

        Args:
            objectness_logits: {"P2": (B, A), ...}.
            anchor_deltas: {"P2": (B, A, 4), ...}.
            anchors: {"P2": (A, 4), ...} in pixels.

        Returns:
            proposals: (B, post_nms_top_k, 4) in pixels, best first, zeros as filling.
            is_proposal: (B, post_nms_top_k) bool, False for filling.
        """
        if not self.per_level:
            objectness_logits = _as_one(objectness_logits, axis=1)
            anchor_deltas = _as_one(anchor_deltas, axis=1)
            anchors = _as_one(anchors, axis=0)
        scores, boxes, groups = [], [], []
        for level, name in enumerate(sorted(anchors)):
            level_scores, level_boxes = self._best_of_level(
                objectness_logits[name], anchor_deltas[name], anchors[name]
            )
            scores.append(level_scores)
            boxes.append(level_boxes)
            groups.append(ops.full((1, level_scores.shape[1]), level, dtype="int32"))
        scores, boxes = ops.concatenate(scores, 1), ops.concatenate(boxes, 1)
        size = boxes[..., 2:] - boxes[..., :2]
        is_large_enough = ops.min(size, axis=-1) >= self.min_size
        # Broken weights must give no proposals rather than proposals of NaN.
        is_candidate = ops.logical_and(is_large_enough, ops.isfinite(scores))
        indices, is_kept = grouped_nms(
            boxes,
            scores,
            ops.concatenate(groups, 1),
            is_candidate,
            len(anchors),
            self.nms_iou_threshold,
            self.post_nms_top_k,
        )
        proposals = gather_rows(boxes, indices)
        return ops.where(is_kept[..., None], proposals, 0.0), is_kept

    def _best_of_level(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits, deltas = ops.stop_gradient(logits), ops.stop_gradient(deltas)
        count = min(self.pre_nms_top_k, logits.shape[1])
        scores, indices = ops.top_k(logits, k=count)
        deltas = gather_rows(deltas, indices)
        references = ops.take(anchors, indices, axis=0)
        boxes = box_ops.decode_deltas(deltas, references, self.delta_weights)
        return scores, box_ops.clip(boxes, self.image_size)

    def compute_output_spec(
        self, objectness_logits: dict[str, Tensor], *_: Any
    ) -> tuple[Tensor, Tensor]:
        """Give (B, post_nms_top_k, 4) float32 and (B, post_nms_top_k) bool."""
        batch = next(iter(objectness_logits.values())).shape[0]
        shape = (batch, self.post_nms_top_k)
        return (
            keras.KerasTensor((*shape, 4), "float32"),
            keras.KerasTensor(shape, "bool"),
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "pre_nms_top_k": self.pre_nms_top_k,
            "post_nms_top_k": self.post_nms_top_k,
            "nms_iou_threshold": self.nms_iou_threshold,
            "min_size": self.min_size,
            "per_level": self.per_level,
            "delta_weights": self.delta_weights,
        }


def _as_one(levels: dict[str, Tensor], axis: int) -> dict[str, Tensor]:
    rows = [levels[name] for name in sorted(levels)]
    return {"all": ops.concatenate(rows, axis=axis)}
