"""Targets of training: which anchors and regions learn what. Not part of inference."""

from typing import Any

import keras
from keras import ops

from kvision.ops import boxes as box_ops
from kvision.ops import masks as mask_ops
from kvision.ops.matching import IGNORED, NEGATIVE, match
from kvision.ops.sampling import balanced_sample, random_keys
from kvision.ops.tracing import static_shapes_required

__all__ = ["AnchorTargets", "MaskTargets", "ROITargets"]

Tensor = Any

# A candidate that lies with more than this part inside an ignore region (a crowd) is
# never background. The value is that of crowds in COCO's evaluation.
_IGNORE_COVERAGE = 0.5


def _match_candidates(
    candidates: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    positive_iou_threshold: float,
    negative_iou_threshold: float,
    allow_low_quality: bool,
) -> tuple[Tensor, Tensor]:
    """Match (B or 1, N, 4) candidates to ground truth, sparing ignore regions."""
    is_object = gt_labels >= 0
    indices, verdicts = match(
        box_ops.iou(gt_boxes, candidates),
        is_object,
        positive_iou_threshold,
        negative_iou_threshold,
        allow_low_quality,
    )
    regions = ops.where(is_object[..., None], 0.0, gt_boxes)

    def spare() -> Tensor:
        shared = box_ops.coverage(candidates, regions)
        covered = ops.max(shared, axis=-1) > _IGNORE_COVERAGE
        spared = ops.logical_and(covered, verdicts == NEGATIVE)
        return ops.where(spared, IGNORED, verdicts)

    # Most batches hold no such region: skip the second matrix of overlaps.
    verdicts = ops.cond(ops.any(regions != 0), spare, lambda: verdicts)
    return indices, verdicts


class _Sampler(keras.layers.Layer):
    """What anchor and region targets share: thresholds and the size of the sample."""

    def __init__(
        self,
        num_samples: int,
        positive_fraction: float,
        positive_iou_threshold: float,
        negative_iou_threshold: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        if negative_iou_threshold > positive_iou_threshold:
            raise ValueError(
                "negative_iou_threshold must not exceed positive_iou_threshold. "
                f"Received: negative_iou_threshold={negative_iou_threshold}, "
                f"positive_iou_threshold={positive_iou_threshold}"
            )
        self.num_samples = num_samples
        self.positive_fraction = positive_fraction
        self.positive_iou_threshold = positive_iou_threshold
        self.negative_iou_threshold = negative_iou_threshold

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_samples": self.num_samples,
            "positive_fraction": self.positive_fraction,
            "positive_iou_threshold": self.positive_iou_threshold,
            "negative_iou_threshold": self.negative_iou_threshold,
        }


@keras.saving.register_keras_serializable("kvision")
class AnchorTargets(_Sampler):
    """Choose anchors for the RPN's loss and say what they should predict.

    Args:
        num_samples: anchors of an image that take part.
        positive_fraction: largest share of positives among them.
        positive_iou_threshold: anchors that overlap an object at least so much are
            positive, and so is the best anchor of every object.
        negative_iou_threshold: anchors that overlap every object less are negative.
        delta_weights: factors of the deltas.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Ren et al. 2015, Faster R-CNN, section 3.1.2; ties as in torchvision.
    """

    def __init__(
        self,
        num_samples: int = 256,
        positive_fraction: float = 0.5,
        positive_iou_threshold: float = 0.7,
        negative_iou_threshold: float = 0.3,
        delta_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_samples,
            positive_fraction,
            positive_iou_threshold,
            negative_iou_threshold,
            **kwargs,
        )
        self.delta_weights = tuple(delta_weights)

    def call(
        self, anchors: Tensor, gt_boxes: Tensor, gt_labels: Tensor, seed: Tensor
    ) -> dict[str, Tensor]:
        """Sample anchors.

        Args:
            anchors: (A, 4) float32 in pixels.
            gt_boxes: (B, G, 4) float32 in pixels.
            gt_labels: (B, G) int32; -1 is padding, or an ignore region if its box is
                not empty.
            seed: scalar int32.

        Returns:
            dict of `indices` (B, S) int32 into the anchors, `objectness` (B, S) float32
            0 or 1, `deltas` (B, S, 4), `weights` and `box_weights` (B, S) 0 or 1.
        """
        matches, verdicts = _match_candidates(
            anchors[None],
            gt_boxes,
            gt_labels,
            self.positive_iou_threshold,
            self.negative_iou_threshold,
            allow_low_quality=True,
        )
        keys = random_keys(tuple(ops.shape(verdicts)), seed)
        indices, is_positive, is_used = balanced_sample(
            verdicts, keys, self.num_samples, self.positive_fraction
        )
        rows = ops.take_along_axis(matches, indices, axis=1)
        boxes = ops.take_along_axis(gt_boxes, rows[..., None], axis=1)
        references = ops.take(anchors, indices, axis=0)
        deltas = box_ops.encode_deltas(boxes, references, self.delta_weights)
        positive = ops.cast(is_positive, "float32")
        return {
            "indices": indices,
            "objectness": positive,
            "deltas": ops.where(is_positive[..., None], deltas, 0.0),
            "weights": ops.cast(is_used, "float32"),
            "box_weights": positive,
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "delta_weights": self.delta_weights}


@keras.saving.register_keras_serializable("kvision")
class ROITargets(_Sampler):
    """Choose regions for the heads' losses and say what they should predict.

    Ground-truth boxes join the proposals, so that there are positives from the start.

    Args:
        num_classes: number of classes K without background.
        num_samples: regions S of an image that take part.
        positive_fraction: largest share of positives among them.
        positive_iou_threshold: regions that overlap an object at least so much are
            positive.
        negative_iou_threshold: regions that overlap every object less are background.
        delta_weights: factors of the box deltas.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Girshick 2015, Fast R-CNN, section 2.3; numbers as in torchvision
    `models/detection/roi_heads.py`.
    """

    def __init__(
        self,
        num_classes: int,
        num_samples: int = 512,
        positive_fraction: float = 0.25,
        positive_iou_threshold: float = 0.5,
        negative_iou_threshold: float = 0.5,
        delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_samples,
            positive_fraction,
            positive_iou_threshold,
            negative_iou_threshold,
            **kwargs,
        )
        self.num_classes = num_classes
        self.delta_weights = tuple(delta_weights)

    @property
    def max_positives(self) -> int:
        """Number of leading slots that can hold a positive region."""
        return int(self.num_samples * self.positive_fraction)

    def call(
        self,
        proposals: Tensor,
        is_proposal: Tensor,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        seed: Tensor,
    ) -> dict[str, Tensor]:
        """Sample regions.

        Args:
            proposals: (B, P, 4) float32 in pixels.
            is_proposal: (B, P) bool, False for padding.
            gt_boxes: (B, G, 4) float32 in pixels.
            gt_labels: (B, G) int32; -1 is padding, or an ignore region if its box is
                not empty.
            seed: scalar int32.

        Returns:
            dict of `rois` (B, S, 4), positives first; `labels` (B, S) int32 with K for
            background; `deltas` (B, S, 4); `gt_indices` (B, S) int32; `weights` and
            `box_weights` (B, S) float32 0 or 1.
        """
        proposals = ops.concatenate([ops.stop_gradient(proposals), gt_boxes], axis=1)
        is_candidate = ops.concatenate([is_proposal, gt_labels >= 0], axis=1)
        matches, verdicts = _match_candidates(
            proposals,
            gt_boxes,
            gt_labels,
            self.positive_iou_threshold,
            self.negative_iou_threshold,
            allow_low_quality=False,
        )
        verdicts = ops.where(is_candidate, verdicts, IGNORED)
        keys = random_keys(tuple(ops.shape(verdicts)), seed)
        indices, is_positive, is_used = balanced_sample(
            verdicts, keys, self.num_samples, self.positive_fraction
        )
        rois = ops.take_along_axis(proposals, indices[..., None], axis=1)
        rows = ops.take_along_axis(matches, indices, axis=1)
        boxes = ops.take_along_axis(gt_boxes, rows[..., None], axis=1)
        labels = ops.take_along_axis(gt_labels, rows, axis=1)
        deltas = box_ops.encode_deltas(boxes, rois, self.delta_weights)
        used = is_used[..., None]
        return {
            "rois": ops.where(used, rois, 0.0),
            "labels": ops.where(is_positive, labels, self.num_classes),
            "deltas": ops.where(is_positive[..., None], deltas, 0.0),
            "gt_indices": rows,
            "weights": ops.cast(is_used, "float32"),
            "box_weights": ops.cast(is_positive, "float32"),
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "delta_weights": self.delta_weights,
        }


@keras.saving.register_keras_serializable("kvision")
class MaskTargets(keras.layers.Layer):
    """Gather the positive regions of a batch in one list with the masks to predict.

    In a plain TensorFlow graph the list is only as long as there are positives, rounded
    up: the mask head is most of the work of a training step, and half of it would go
    into empty slots. Where shapes must be static all slots stay, with weight 0.

    Args:
        max_positives: leading slots of each image that can hold a positive region.
        mask_size: cells along each side of the predicted masks.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    # The length of the list is rounded up to a multiple of this, so that the kernels
    # of the convolutions are prepared for few different sizes.
    _GRANULE = 32

    def __init__(
        self, max_positives: int = 128, mask_size: int = 28, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.max_positives = max_positives
        self.mask_size = mask_size

    def call(
        self, targets: dict[str, Tensor], gt_boxes: Tensor, gt_masks: Tensor
    ) -> dict[str, Tensor]:
        """List positive regions.

        Args:
            targets: what `ROITargets` returns.
            gt_boxes: (B, G, 4) float32 in pixels.
            gt_masks: (B, G, h, w) masks over their boxes, 0-255.

        Returns:
            dict of `rois` (N, 4), `image_indices` (N,) int32, `labels` (N,) int32,
            `masks` (N, m, m) in [0, 1] and `weights` (N,) 0 or 1.
        """
        count = self.max_positives
        first = {name: targets[name][:, :count] for name in ("rois", "gt_indices")}
        rois = ops.reshape(first["rois"], (-1, 4))
        rows = ops.reshape(first["gt_indices"], (-1,))
        labels = ops.reshape(targets["labels"][:, :count], (-1,))
        weights = ops.reshape(targets["box_weights"][:, :count], (-1,))
        batch = ops.shape(gt_boxes)[0]
        images = ops.repeat(ops.arange(batch, dtype="int32"), count)
        slots = self._slots(weights)
        if slots is not None:
            rois, rows, labels, weights, images = (
                ops.take(values, slots, axis=0)
                for values in (rois, rows, labels, weights, images)
            )
        objects = images * ops.shape(gt_boxes)[1] + rows
        masks = ops.take(
            ops.reshape(gt_masks, (-1, *gt_masks.shape[2:])), objects, axis=0
        )
        boxes = ops.take(ops.reshape(gt_boxes, (-1, 4)), objects, axis=0)
        masks = ops.cast(masks, "float32") / 255.0
        return {
            "rois": rois,
            "image_indices": images,
            "labels": labels,
            "masks": mask_ops.crop_masks(masks, boxes, rois, self.mask_size),
            "weights": weights,
        }

    def _slots(self, weights: Tensor) -> Tensor | None:
        """Choose the slots that enter the list; None for all of them."""
        if static_shapes_required():
            return None
        positives_first = ops.argsort(-weights)
        number = ops.cast(ops.sum(weights), "int32")
        rounded = (number + self._GRANULE - 1) // self._GRANULE * self._GRANULE
        limit = ops.shape(weights)[0]
        return positives_first[: ops.minimum(ops.maximum(rounded, 1), limit)]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "max_positives": self.max_positives,
            "mask_size": self.mask_size,
        }
