"""The training composition of the R-CNN line: ground truth in, losses out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keras import ops

from kvision import layers
from kvision.ops import boxes as box_ops
from kvision.ops.ordering import differentiate_last

__all__ = ["RCNNLosses"]

Tensor = Any


@dataclass(frozen=True, eq=False)
class RCNNLosses:
    """Run the layers of a detector on images and ground truth.

    It shares all layers that have weights with the inference model and adds targets and
    losses, which have none; an exported model therefore cannot contain them. It is a
    function over layers and not a second Functional model: lists of positives have a
    length that depends on the data, and nothing of it is ever saved.
    """

    features: Callable[..., dict[str, Tensor]]
    anchors: layers.Anchors
    rpn: layers.RPN
    box_align: layers.ROIAlign
    box_head: layers.BoxHead
    mask_align: layers.ROIAlign
    mask_head: layers.MaskHead | None
    anchor_targets: layers.AnchorTargets
    proposals: layers.ProposalSelection
    roi_targets: layers.ROITargets
    rpn_loss: layers.RPNLoss
    box_loss: layers.BoxLoss
    mask_loss: layers.MaskLoss = field(default_factory=layers.MaskLoss)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the losses."""
        names = ("rpn_objectness_loss", "rpn_box_loss", "class_loss", "box_loss")
        return (*names, "mask_loss") if self.mask_head else names

    def __call__(
        self, images: Tensor, targets: dict[str, Tensor], seed: Tensor, training: bool
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            images: (B, H, W, C) in 0-255.
            targets: `gt_boxes` (B, G, 4), `gt_labels` (B, G) and, with a mask head,
                `gt_masks` (B, G, h, w) in 0-255.
            seed: scalar int32, decides which anchors and regions are sampled.
            training: whether batch normalisation and dropout behave as in training.

        Returns:
            {name: scalar float32}.
        """
        if self.anchors.inclusive:
            targets = {**targets, "gt_boxes": self._inclusive(targets["gt_boxes"])}
        gt_boxes, gt_labels = targets["gt_boxes"], targets["gt_labels"]
        maps = self.features(images, training=training)
        anchors = self.anchors(maps)
        objectness, deltas = self.rpn(maps)
        levels = sorted(anchors)

        anchor_targets = self.anchor_targets(
            _joined(anchors, levels, 0), gt_boxes, gt_labels, seed
        )
        losses = self.rpn_loss(
            _joined(objectness, levels, 1), _joined(deltas, levels, 1), anchor_targets
        )

        proposals, is_proposal = self.proposals(objectness, deltas, anchors)
        roi_targets = self.roi_targets(
            proposals, is_proposal, gt_boxes, gt_labels, seed
        )
        pooled_maps = {name: maps[name] for name in levels[:-1]}
        pooled = self.box_align(pooled_maps, roi_targets["rois"])
        predictions = self.box_head(pooled, training=training)
        if self.mask_head is not None:
            # Side by side the two heads would need a sixth more memory.
            predictions, mask_maps = differentiate_last(
                list(predictions), list(pooled_maps.values())
            )
            losses |= self._mask_losses(
                self.mask_head,
                dict(zip(pooled_maps, mask_maps, strict=True)),
                roi_targets,
                targets,
                training,
            )
        return losses | self.box_loss(*predictions, roi_targets)

    def _inclusive(self, gt_boxes: Tensor) -> Tensor:
        """Express ground truth as the anchors are; padding stays 0."""
        is_box = ops.any(gt_boxes != 0, axis=-1, keepdims=True)
        boxes = box_ops.to_inclusive(gt_boxes, self.anchors.image_size)
        return ops.where(is_box, boxes, 0.0)

    def _mask_losses(
        self,
        mask_head: layers.MaskHead,
        maps: dict[str, Tensor],
        roi_targets: dict[str, Tensor],
        targets: dict[str, Tensor],
        training: bool,
    ) -> dict[str, Tensor]:
        if "gt_masks" not in targets:
            raise ValueError(
                "This model has a mask head, but the targets have no gt_masks. Build "
                "the dataset with masks=True, or use kvision.models.faster_rcnn."
            )
        select = layers.MaskTargets(self.roi_targets.max_positives)
        mask_targets = select(roi_targets, targets["gt_boxes"], targets["gt_masks"])
        pooled = self.mask_align(
            maps, mask_targets["rois"], mask_targets["image_indices"]
        )
        logits = mask_head(pooled, mask_targets["labels"], training=training)
        return self.mask_loss(logits, mask_targets)


def _joined(levels: dict[str, Tensor], names: list[str], axis: int) -> Tensor:
    return ops.concatenate([levels[name] for name in names], axis=axis)
