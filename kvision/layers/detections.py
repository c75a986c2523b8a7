"""Detections: the classified regions that are left after suppression."""

from typing import Any

import keras
from keras import ops

from kvision.ops import boxes as box_ops
from kvision.ops.gathering import gather_rows
from kvision.ops.nms import grouped_nms

__all__ = ["DetectionSelection", "MaskScores", "PixelBoxes"]

Tensor = Any


@keras.saving.register_keras_serializable("kvision")
class DetectionSelection(keras.layers.Layer):
    """Turn the box head's predictions into a fixed number of detections.

    Every class of every region whose score exceeds the threshold is a candidate with
    its own box; suppression runs within each class; the best of all classes are left.

    Args:
        image_size: (height, width) of the model input in pixels.
        score_threshold: candidates at or below it are dropped.
        nms_iou_threshold: overlap above which the weaker box of a class is dropped.
        max_detections: detections M of an image.
        pre_nms_top_k: candidates of an image that enter the suppression.
        min_size: shortest side in pixels.
        delta_weights: factors of the box deltas.
        best_class_only: whether a region is a candidate of its best class only, and of
            none if that is the background.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: torchvision `models/detection/roi_heads.py`, postprocess_detections; there
    all candidates enter the suppression, here the best `pre_nms_top_k`. With the best
    class only, matterport/Mask_RCNN, mrcnn/model.py, refine_detections_graph.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        score_threshold: float = 0.05,
        nms_iou_threshold: float = 0.5,
        max_detections: int = 100,
        pre_nms_top_k: int = 5000,
        min_size: float = 1e-2,
        delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
        best_class_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.image_size = tuple(image_size)
        self.score_threshold = score_threshold
        self.nms_iou_threshold = nms_iou_threshold
        self.max_detections = max_detections
        self.pre_nms_top_k = pre_nms_top_k
        self.min_size = min_size
        self.delta_weights = tuple(delta_weights)
        self.best_class_only = best_class_only

    def call(
        self,
        class_logits: Tensor,
        box_deltas: Tensor,
        proposals: Tensor,
        is_proposal: Tensor,
    ) -> dict[str, Tensor]:
        """Select detections.

        Args:
            class_logits: (B, R, K + 1), background last.
            box_deltas: (B, R, K, 4).
            proposals: (B, R, 4) float32 in pixels.
            is_proposal: (B, R) bool, False for padding.

        Returns:
            dict of `boxes` (B, M, 4) float32 in pixels, `scores` (B, M) float32 in
            (0, 1) descending, `labels` (B, M) int32 and `num_detections` (B,) int32.
            Rows beyond the number hold zeros and the label -1.
        """
        regions, num_classes = box_deltas.shape[1:3]
        scores = ops.softmax(class_logits, axis=-1)
        if self.best_class_only:
            # Not by argmax: Keras' has no TFLite form.
            best = ops.max(scores, axis=-1, keepdims=True)
            scores = ops.where(scores < best, 0.0, scores)
        scores = ops.where(is_proposal[..., None], scores[..., :num_classes], 0.0)
        scores = ops.reshape(scores, (-1, regions * num_classes))
        count = min(self.pre_nms_top_k, regions * num_classes)
        scores, candidates = ops.top_k(scores, k=count)
        labels = ops.cast(candidates % num_classes, "int32")
        boxes = self._decode(box_deltas, proposals, candidates)
        size = boxes[..., 2:] - boxes[..., :2]
        is_candidate = ops.logical_and(
            scores > self.score_threshold, ops.min(size, axis=-1) >= self.min_size
        )
        indices, is_kept = grouped_nms(
            boxes,
            scores,
            labels,
            is_candidate,
            num_classes,
            self.nms_iou_threshold,
            self.max_detections,
        )
        boxes = gather_rows(boxes, indices)
        return {
            "boxes": ops.where(is_kept[..., None], boxes, 0.0),
            "scores": ops.where(
                is_kept, ops.take_along_axis(scores, indices, axis=1), 0.0
            ),
            "labels": ops.where(
                is_kept, ops.take_along_axis(labels, indices, axis=1), -1
            ),
            "num_detections": ops.sum(ops.cast(is_kept, "int32"), axis=1),
        }

    def _decode(
        self, box_deltas: Tensor, proposals: Tensor, candidates: Tensor
    ) -> Tensor:
        """Decode the boxes of the candidates only: (B, count) rows of R * K."""
        regions, num_classes = box_deltas.shape[1:3]
        deltas = ops.reshape(box_deltas, (-1, regions * num_classes, 4))
        deltas = gather_rows(deltas, candidates)
        proposals = gather_rows(proposals, candidates // num_classes)
        boxes = box_ops.decode_deltas(deltas, proposals, self.delta_weights)
        return box_ops.clip(boxes, self.image_size)

    def compute_output_spec(self, class_logits: Tensor, *_: Any) -> dict[str, Tensor]:
        """Give the four tensors of `call`."""
        shape = (class_logits.shape[0], self.max_detections)
        return {
            "boxes": keras.KerasTensor((*shape, 4), "float32"),
            "scores": keras.KerasTensor(shape, "float32"),
            "labels": keras.KerasTensor(shape, "int32"),
            "num_detections": keras.KerasTensor(shape[:1], "int32"),
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "score_threshold": self.score_threshold,
            "nms_iou_threshold": self.nms_iou_threshold,
            "max_detections": self.max_detections,
            "pre_nms_top_k": self.pre_nms_top_k,
            "min_size": self.min_size,
            "delta_weights": self.delta_weights,
            "best_class_only": self.best_class_only,
        }


@keras.saving.register_keras_serializable("kvision")
class PixelBoxes(keras.layers.Layer):
    """Bring the detections of a model that computes inclusive boxes to pixels.

    Args:
        image_size: (height, width) of the model input in pixels.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.image_size = tuple(image_size)

    def call(self, boxes: Tensor, labels: Tensor) -> Tensor:
        """Convert boxes (B, M, 4); of labels (B, M) those of padding are -1."""
        in_pixels = box_ops.from_inclusive(boxes, self.image_size)
        return ops.where(labels[..., None] >= 0, in_pixels, 0.0)

    def compute_output_shape(
        self, boxes_shape: tuple[int | None, ...], labels_shape: Any
    ) -> tuple[int | None, ...]:
        """Keep the shape of the boxes."""
        return boxes_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "image_size": self.image_size}


@keras.saving.register_keras_serializable("kvision")
class MaskScores(keras.layers.Layer):
    """Turn the mask logits of detections into probabilities, 0 for padding.

    Args:
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, mask_logits: Tensor, labels: Tensor) -> Tensor:
        """Squash (B, M, m, m) logits; (B, M) int32 labels are -1 for padding."""
        is_detection = ops.cast(labels >= 0, "float32")[..., None, None]
        return ops.sigmoid(mask_logits) * is_detection

    def compute_output_shape(
        self, mask_logits_shape: tuple[int | None, ...], labels_shape: Any
    ) -> tuple[int | None, ...]:
        """Keep the shape of the logits."""
        return mask_logits_shape
