"""Where a model chooses patches: how clear its choice is.

Two forms of one model add numbers up in another order. Where the last patch that is
kept and the first that is not score alike, rounding decides, and the logits that follow
say nothing about the form.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kvision.export.classifier import Classifier
from kvision.export.parity import in_batches
from kvision.viz.transformer_graph import mixing_layers, pruning_layers

__all__ = ["is_decided"]

Array = np.ndarray
Tensor = Any

_LEAST_MARGIN = 1e-3
# What rounding may change, as a share of the largest score: energies of pixels are sums
# of many thousands.
_ROUNDING = 1e-5


def is_decided(classifier: Classifier, inputs: Mapping[str, Array]) -> Array:
    """Tell of which images it is beyond rounding which patches are chosen.

    Args:
        classifier: the model.
        inputs: "images" (N, H, W, C), and "regions" if it takes any.

    Returns:
        (N,) bool array: whether at every choice of the model the gap between the last
        score that is kept and the first that is dropped exceeds 1e-3, and 1e-5 of the
        largest score. All are, of a model that keeps all patches.

    Raises:
        ValueError: none of them is.
    """
    choices = _choices(classifier.model)
    if not choices:
        return np.ones(len(inputs["images"]), bool)
    scores = in_batches(_graph(classifier, choices), inputs)
    clear = [_is_clear(scores[name], count) for name, (_, count) in choices.items()]
    decided = np.all(clear, axis=0)
    if not decided.any():
        raise ValueError(
            f"{classifier.name} chooses patches, and of all {len(decided)} images the "
            f"last score kept and the first dropped differ by {_LEAST_MARGIN:g} or "
            "less, or by what rounding does: nothing can be compared. Give other "
            "images, or train the model first."
        )
    return decided


def _choices(model: Any) -> dict[str, tuple[Tensor, int]]:
    """Return scores (B, ...) and how many are kept, of layers that do not keep all."""
    found = {}
    for layer in pruning_layers(model):
        found[layer.name] = layer.input[1], layer.output[2].shape[1]
    for layer in mixing_layers(model):
        tokens, cells = layer.output
        found[layer.name] = layer.input[2], (tokens.shape[1] - cells.shape[1]) // 3
    return {
        name: (scores, count)
        for name, (scores, count) in found.items()
        if 0 < count < np.prod(scores.shape[1:])
    }


def _graph(classifier: Classifier, choices: Mapping[str, tuple[Tensor, int]]) -> Any:
    import keras
    import tensorflow as tf

    scores = {name: tensor for name, (tensor, _) in choices.items()}
    graph = keras.Model(classifier.model.input, scores)
    return tf.function(
        lambda **inputs: graph(classifier.inputs(**inputs), training=False)
    )


def _is_clear(scores: Array, count: int) -> Array:
    """Tell of each row (B,) whether its first `count` scores stand out."""
    rows = np.sort(scores.reshape(len(scores), -1), axis=1)[:, ::-1]
    gaps = rows[:, count - 1] - rows[:, count]
    return gaps > np.maximum(_LEAST_MARGIN, _ROUNDING * np.abs(rows).max(axis=1))
