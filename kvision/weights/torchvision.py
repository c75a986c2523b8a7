"""The layout of torchvision: Faster, Mask and Keypoint R-CNN, v1 and v2, and ResNets.

The background is its first class and our last one. Its models of COCO have an output
for every category id from 0 to 90; a model for COCO's 80 classes, by name, takes theirs
and leaves out those of ids that nobody uses. Scores are then shares of a smaller whole.

Source: torchvision 0.29, models/resnet.py and models/detection/*.py; the names of 2019
are those that its `_load_from_state_dict` still takes.
"""

import re
from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np

from kvision.weights.coco_names import COCO_NAMES
from kvision.weights.places import Place, Shape, convolution, norm, plain, with_norms
from kvision.weights.region_heads import (
    backbone_of,
    class_masks,
    class_rows,
    enlargement,
    flattened_dense,
)

__all__ = ["LEFT_OUT", "is_spare", "places", "recognises", "renamed"]

# Beginnings of names that need not be said to be left out, and whose they are.
LEFT_OUT = {
    "roi_heads.keypoint_": "a head for keypoints, which the model does not have"
}

Array = np.ndarray

_BODY = "backbone.body."
_PYRAMID_2019 = re.compile(r"^(backbone\.fpn\.\w+_blocks\.\d+)\.(weight|bias)$")
_MASKS_2019 = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d+)\.")
_RPN_2019 = "rpn.head.conv."


def recognises(names: Set[str]) -> bool:
    """Say whether a checkpoint has this layout.

    Args:
        names: of its tensors.

    Returns:
        Whether it has.
    """
    first = {"conv1.weight", "layer1.0.conv1.weight"}
    return first <= names or {_BODY + name for name in first} <= names


def renamed(name: str) -> str:
    """Return the present name of a tensor that had another one in 2019.

    Args:
        name: in the file.

    Returns:
        The name here.
    """
    name = _PYRAMID_2019.sub(r"\1.0.\2", name)
    name = _MASKS_2019.sub(lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.", name)
    if name in (_RPN_2019 + "weight", _RPN_2019 + "bias"):
        name = name.replace(_RPN_2019, _RPN_2019 + "0.0.")
    return name


def is_spare(name: str) -> bool:
    """Say whether a tensor is none that a model needs.

    Args:
        name: of the tensor.

    Returns:
        Whether it is a counter of batches, the classifier of a ResNet, or of
        `LEFT_OUT`.
    """
    if name.endswith("num_batches_tracked") or name in ("fc.weight", "fc.bias"):
        return True
    return name.startswith(tuple(LEFT_OUT))


def places(model: Any, shapes: Mapping[str, Shape]) -> Iterator[Place]:
    """List where the tensors go.

    Args:
        model: a detector of `kvision.models`, or a ResNet without classifier.
        shapes: of the tensors of the checkpoint.

    Yields:
        A place for each variable.
    """
    layers = {layer.name: layer for layer in model.layers}
    if "pyramid" not in layers:
        yield from _resnet(model, "")
        return
    yield from _resnet(backbone_of(model), _BODY)
    yield from _pyramid(layers["pyramid"])
    yield from _rpn(layers["rpn"])
    classes = _classes(model, layers["box_head"].num_classes, shapes)
    yield from _box_head(layers["box_head"], layers["pyramid"].channels, classes)
    if "mask_head" in layers:
        yield from _mask_head(layers["mask_head"], classes)
    if "keypoint_head" in layers:
        yield from _keypoint_head(layers["keypoint_head"])


def _classes(model: Any, num_classes: int, shapes: Mapping[str, Shape]) -> Array:
    """Return which output there is that of each class here."""
    names = list(getattr(model, "class_names", ()))
    ids = {name: number for number, name in COCO_NAMES.items()}
    outputs = shapes.get("roi_heads.box_predictor.cls_score.bias")
    if outputs == (max(COCO_NAMES) + 1,) and set(names) == set(ids):
        return np.array([ids[name] for name in names])
    return np.arange(1, num_classes + 1)


def _resnet(model: Any, prefix: str) -> Iterator[Place]:
    """Place layers "layer1_0_conv1" and the like: a dot for every underscore."""
    for layer in model.layers:
        name = prefix + layer.name.replace("_", ".")
        if hasattr(layer, "kernel"):
            is_first = layer.name == "conv1"
            yield from convolution(layer.kernel, None, name, is_first=is_first)
        elif hasattr(layer, "moving_mean"):
            yield from norm(layer, name)


def _block(conv: Any, batch_norm: Any, name: str) -> Iterator[Place]:
    """Place a convolution and, in v2, the normalisation that takes its bias' place."""
    yield from convolution(conv.kernel, conv.bias, f"{name}.0")
    if batch_norm is not None:
        yield from norm(batch_norm, f"{name}.1")


def _pyramid(layer: Any) -> Iterator[Place]:
    for blocks, convs, norms in (
        ("inner_blocks", layer.laterals, layer.lateral_norms),
        ("layer_blocks", layer.outputs, layer.output_norms),
    ):
        for i, (conv, batch_norm) in enumerate(with_norms(convs, norms)):
            yield from _block(conv, batch_norm, f"backbone.fpn.{blocks}.{i}")


def _rpn(layer: Any) -> Iterator[Place]:
    for i, conv in enumerate(layer.convs):
        yield from _block(conv, None, f"rpn.head.conv.{i}")
    for output, name in ((layer.objectness, "cls_logits"), (layer.deltas, "bbox_pred")):
        yield from convolution(output.kernel, output.bias, f"rpn.head.{name}")


def _hidden(layer: Any, name: str) -> Iterator[Place]:
    for i, (conv, batch_norm) in enumerate(with_norms(layer.convs, layer.norms)):
        yield from _block(conv, batch_norm, f"{name}.{i}")


def _box_head(layer: Any, pyramid_channels: int, classes: Array) -> Iterator[Place]:
    name = "roi_heads.box_head"
    yield from _hidden(layer, name)
    channels = layer.conv_channels if layer.convs else pyramid_channels
    # v2 numbers its modules: convolutions, then a flattening, then this one.
    dense_names = [str(len(layer.convs) + 1)] if layer.convs else ["fc6", "fc7"]
    for dense, theirs in zip(layer.denses, dense_names, strict=True):
        yield from flattened_dense(dense, f"{name}.{theirs}", channels)
        channels = dense.units
    name = "roi_heads.box_predictor"
    yield from class_rows(layer.classes, f"{name}.cls_score", np.append(classes, 0))
    deltas = (4 * classes[:, None] + np.arange(4)).ravel()
    yield from class_rows(layer.deltas, f"{name}.bbox_pred", deltas)


def _mask_head(layer: Any, classes: Array) -> Iterator[Place]:
    yield from _hidden(layer, "roi_heads.mask_head")
    name = "roi_heads.mask_predictor"
    yield from enlargement(layer.enlarge, f"{name}.conv5_mask")
    yield from class_masks(layer, f"{name}.mask_fcn_logits", classes)


def _keypoint_head(layer: Any) -> Iterator[Place]:
    """Place 3x3 convolutions and the transposed one that makes maps of scores."""
    for i, conv in enumerate(layer.convs):
        name = f"roi_heads.keypoint_head.{2 * i}"
        yield from convolution(conv.kernel, conv.bias, name)
    name = "roi_heads.keypoint_predictor.kps_score_lowres"
    height, width, outputs, inputs = layer.scores.kernel.shape
    yield Place(
        layer.scores.kernel,
        (f"{name}.weight",),
        ((inputs, outputs, height, width),),
        lambda kernel: kernel.transpose(2, 3, 1, 0),
        is_head=True,
    )
    yield from plain(layer.scores.bias, f"{name}.bias", is_head=True)
