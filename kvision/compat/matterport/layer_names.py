"""matterport's names of layers for the weights of our model: "3+", "heads", excluding.

Normalisations of the heads have no name here: they are folded into the layers before
them.
"""

import re
from collections.abc import Sequence, Set
from typing import Any

import keras

from kvision.weights import matterport

__all__ = ["WEIGHTLESS", "layer_names", "select_layers", "set_trainable"]

_HEADS = r"mrcnn_.*|rpn_.*|fpn_.*"
_PRESETS = {
    "heads": _HEADS,
    "3+": rf"(res|bn)[345].*|{_HEADS}",
    "4+": rf"(res|bn)[45].*|{_HEADS}",
    "5+": rf"(res|bn)5.*|{_HEADS}",
    "all": r".*",
}
# Layers of matterport's model without weights, which scripts exclude from loading.
WEIGHTLESS = frozenset({"mrcnn_bbox", "mrcnn_class", "mrcnn_detection", "ROI"})


def layer_names(model: Any) -> dict[int, str]:
    """Name the layer that each variable is of.

    Args:
        model: a Mask R-CNN of `kvision.models` on "resnet50" or "resnet101".

    Returns:
        {id(variable): name}, such as "res2a_branch2a" or "mrcnn_mask_conv1".
    """
    return {
        id(place.variable): place.names[0].split("/")[0]
        for place in matterport.places(model, {})
    }


def select_layers(model: Any, layers: str) -> set[str]:
    """Find the layers that a preset or a regular expression means.

    Args:
        model: as of `layer_names`.
        layers: "heads", "3+", "4+", "5+", "all", or a regular expression of whole
            names.

    Returns:
        Their names.

    Raises:
        ValueError: it is none of these, or no layer has such a name.
    """
    names = set(layer_names(model).values())
    try:
        pattern = re.compile(_PRESETS.get(layers, layers))
    except (re.error, TypeError) as error:
        raise ValueError(_expected(layers, names, str(error))) from error
    found = {name for name in names if pattern.fullmatch(name)}
    if not found:
        raise ValueError(_expected(layers, names, "no layer has such a name"))
    return found


def set_trainable(model: Any, learnable: Sequence[Any], names: Set[str]) -> None:
    """Let some layers learn and no others.

    Args:
        model: as of `layer_names`.
        learnable: its variables that can learn at all.
        names: of the layers.
    """
    owners = layer_names(model)
    backbone = next(layer for layer in model.layers if hasattr(layer, "layers"))
    for layer in backbone.layers:
        # Its statistics follow the data where it learns, and there alone.
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = owners[id(layer.gamma)] in names
    for variable in learnable:
        variable.trainable = owners[id(variable)] in names


def _expected(layers: Any, names: set[str], fault: str) -> str:
    return (
        f"layers must be one of {', '.join(map(repr, _PRESETS))}, or a regular "
        f"expression of whole names of layers such as {sorted(names)[:2]}. Received: "
        f"layers={layers!r} ({fault})"
    )
