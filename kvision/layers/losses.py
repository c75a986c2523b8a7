"""Losses of training, each with its normaliser. Not part of inference."""

from typing import Any

import keras
from keras import ops

from kvision.ops.losses import (
    sigmoid_cross_entropy,
    smooth_l1,
    softmax_cross_entropy,
    weighted_mean,
)

__all__ = ["BoxLoss", "MaskLoss", "RPNLoss"]

Tensor = Any


@keras.saving.register_keras_serializable("kvision")
class RPNLoss(keras.layers.Layer):
    """Compute the two losses of the region proposal network.

    Both are sums over the batch divided by the number of sampled anchors.

    Args:
        beta: where the smooth L1 loss turns into a line; 0 is detectron2's L1.
        mean_of_positives: whether the box loss is the mean of the errors of positives,
            over their four deltas too (matterport).
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Ren et al. 2015, Faster R-CNN, Eq. 1; normaliser and beta of torchvision.
    """

    def __init__(
        self, beta: float = 1 / 9, mean_of_positives: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.beta = beta
        self.mean_of_positives = mean_of_positives

    def call(
        self,
        objectness_logits: Tensor,
        anchor_deltas: Tensor,
        targets: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Compare predictions with sampled targets.

        Args:
            objectness_logits: (B, A).
            anchor_deltas: (B, A, 4).
            targets: what `AnchorTargets` returns.

        Returns:
            scalars `rpn_objectness_loss` and `rpn_box_loss`.
        """
        indices, weights = targets["indices"], targets["weights"]
        logits = ops.take_along_axis(objectness_logits, indices, axis=1)
        deltas = ops.take_along_axis(anchor_deltas, indices[..., None], axis=1)
        objectness = sigmoid_cross_entropy(logits, targets["objectness"])
        errors = smooth_l1(deltas, targets["deltas"], self.beta)
        return {
            "rpn_objectness_loss": weighted_mean(objectness, weights),
            "rpn_box_loss": _box_loss(errors, targets, self.mean_of_positives),
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "beta": self.beta,
            "mean_of_positives": self.mean_of_positives,
        }


@keras.saving.register_keras_serializable("kvision")
class BoxLoss(keras.layers.Layer):
    """Compute the two losses of the box head.

    Both are sums over the batch divided by the number of all sampled regions, the box
    loss too, although only positives enter it.

    Args:
        beta: where the smooth L1 loss turns into a line; 0 is detectron2's L1.
        mean_of_positives: as of `RPNLoss`.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Girshick 2015, Fast R-CNN, section 2.3; normaliser and beta of torchvision.
    """

    def __init__(
        self, beta: float = 1 / 9, mean_of_positives: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.beta = beta
        self.mean_of_positives = mean_of_positives

    def call(
        self, class_logits: Tensor, box_deltas: Tensor, targets: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compare predictions with the targets of sampled regions.

        Args:
            class_logits: (B, S, K + 1).
            box_deltas: (B, S, K, 4).
            targets: what `ROITargets` returns.

        Returns:
            scalars `class_loss` and `box_loss`.
        """
        labels, weights = targets["labels"], targets["weights"]
        own = ops.minimum(labels, box_deltas.shape[2] - 1)[..., None, None]
        deltas = ops.take_along_axis(box_deltas, own, axis=2)[:, :, 0]
        errors = smooth_l1(deltas, targets["deltas"], self.beta)
        return {
            "class_loss": weighted_mean(
                softmax_cross_entropy(class_logits, labels), weights
            ),
            "box_loss": _box_loss(errors, targets, self.mean_of_positives),
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "beta": self.beta,
            "mean_of_positives": self.mean_of_positives,
        }


@keras.saving.register_keras_serializable("kvision")
class MaskLoss(keras.layers.Layer):
    """Compute the loss of the mask head: mean cross-entropy of the cells of positives.

    Args:
        **kwargs: arguments of `keras.layers.Layer`.

    Source: He et al. 2017, Mask R-CNN, section 3.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(
        self, mask_logits: Tensor, targets: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compare (N, m, m) logits with what `MaskTargets` returns.

        Returns:
            scalar `mask_loss`; 0 without positives.
        """
        cells = sigmoid_cross_entropy(mask_logits, targets["masks"])
        losses = ops.mean(cells, axis=(-2, -1))
        return {"mask_loss": weighted_mean(losses, targets["weights"])}


def _box_loss(
    errors: Tensor, targets: dict[str, Tensor], mean_of_positives: bool
) -> Tensor:
    """Add up (B, S, 4) errors of positives and divide by what they are compared to."""
    positives = targets["box_weights"]
    total = ops.sum(ops.sum(errors, axis=-1) * positives)
    count = 4 * positives if mean_of_positives else targets["weights"]
    return total / ops.maximum(ops.sum(count), 1.0)
