"""Gradient checkpointing: a backbone whose activations are computed a second time."""

import functools
import math
from typing import Any

import keras

from kvision.models.backbones import bottlenecks
from kvision.ops.recomputation import recomputed

__all__ = ["RecomputedFeatures"]

Tensor = Any

# A segment ends where it holds this share of all activations. Smaller ones save little
# more: the tensors between them are kept.
_SHARE = 1 / 8


class RecomputedFeatures:
    """Run a backbone in segments and keep only what passes between them.

    The backward pass computes the inside of one segment after the other anew. Weights
    are shared with the backbone.

    Args:
        normalize: layer before the backbone, or None.
        backbone: model with outputs "C2" to "C5".
        pyramid: layer after it.

    Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost.
    """

    def __init__(
        self,
        normalize: keras.layers.Layer | None,
        backbone: keras.Model,
        pyramid: keras.layers.Layer,
    ) -> None:
        self._normalize, self._pyramid = normalize, pyramid
        self.segments: list[tuple[keras.Model, str]] = []
        level_of = {id(tensor): level for level, tensor in backbone.output.items()}
        start = backbone.inputs[0]
        for operations in _split(backbone):
            outputs = [operation.output for operation in operations]
            ends = {level_of[id(x)]: x for x in outputs if id(x) in level_of}
            last = level_of.get(id(outputs[-1]), "between")
            ends[last] = outputs[-1]
            self.segments.append((keras.Model(start, ends, name="segment"), last))
            start = outputs[-1]

    def __call__(self, images: Tensor, training: bool) -> dict[str, Tensor]:
        """Compute the maps of the pyramid of images (B, H, W, C) in 0-255."""
        x = self._normalize(images) if self._normalize else images
        features: dict[str, Tensor] = {}
        for segment, last in self.segments:
            run = functools.partial(segment, training=training)
            features |= recomputed(run, segment.non_trainable_variables)(x)
            x = features[last]
        return self._pyramid(features, training=training)


def _split(backbone: keras.Model) -> list[list[Any]]:
    """Cut the operations of a model where all that follows depends on one tensor."""
    operations = [
        operation
        for operation in backbone.operations
        if not isinstance(operation, keras.layers.InputLayer)
    ]
    ends = bottlenecks(backbone)
    enough = _SHARE * sum(map(_size, operations))
    segments: list[list[Any]] = [[]]
    for operation in operations[:-1]:
        segments[-1].append(operation)
        if operation in ends and sum(map(_size, segments[-1])) >= enough:
            segments.append([])
    segments[-1].append(operations[-1])
    return segments


def _size(operation: Any) -> int:
    tensors = keras.tree.flatten(operation.output)
    return sum(math.prod(n or 1 for n in tensor.shape) for tensor in tensors)
