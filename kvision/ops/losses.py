"""Losses per element; the layers that use them weigh, sum and normalise."""

from typing import Any

from keras import ops

from kvision.ops.boxes import area

__all__ = [
    "giou",
    "sigmoid_cross_entropy",
    "smooth_l1",
    "softmax_cross_entropy",
    "weighted_mean",
]

Tensor = Any


def sigmoid_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the binary cross-entropy of logits, stable for any size of logit.

    Args:
        logits: (...) float tensor.
        targets: (...) float tensor in [0, 1].

    Returns:
        (...) tensor of losses.
    """
    return ops.softplus(logits) - logits * targets


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the cross-entropy of logits against class indices.

    Args:
        logits: (..., K) float tensor.
        labels: (...) int tensor in [0, K).

    Returns:
        (...) tensor of losses.
    """
    log_scores = ops.log_softmax(logits, axis=-1)
    return -ops.sum(log_scores * ops.one_hot(labels, logits.shape[-1]), axis=-1)


def smooth_l1(predictions: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Compute the Huber loss of Fast R-CNN divided by beta.

    Args:
        predictions: (...) float tensor.
        targets: (...) float tensor.
        beta: error at which the parabola turns into a line; 0 gives the L1 loss.

    Returns:
        (...) tensor: 0.5 e^2 / beta below beta, |e| - beta / 2 above.

    Source: Girshick 2015, Fast R-CNN, Eq. 3; beta as in torchvision.
    """
    error = ops.abs(predictions - targets)
    if beta == 0:
        return error
    return ops.where(error < beta, 0.5 * error * error / beta, error - 0.5 * beta)


def giou(boxes: Tensor, targets: Tensor) -> Tensor:
    """Compute 1 - GIoU of each box and its target.

    Args:
        boxes: (..., 4) float tensor in pixels; reversed boxes count as empty.
        targets: (..., 4) float tensor in pixels.

    Returns:
        (...) tensor of losses in [0, 2]: 0 for equal boxes; above 1, with a gradient
        that draws them together, for boxes apart; 1 where both are empty and at one
        place.

    Source: Rezatofighi et al. 2019, Generalized Intersection over Union, algorithm 1.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    target_low, target_high = targets[..., :2], targets[..., 2:]
    shared = [ops.maximum(low, target_low), ops.minimum(high, target_high)]
    around = [ops.minimum(low, target_low), ops.maximum(high, target_high)]
    intersection = area(ops.concatenate(shared, axis=-1))
    hull = area(ops.concatenate(around, axis=-1))
    union = area(boxes) + area(targets) - intersection
    overlap = intersection / ops.maximum(union, 1e-9)
    return 1 - overlap + (hull - union) / ops.maximum(hull, 1e-9)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Average values by weight; 0 when no weight is set.

    Args:
        values: (...) float tensor.
        weights: (...) float tensor of non-negative numbers.

    Returns:
        Scalar tensor.
    """
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1e-9)
