"""The layout of detectron2: Faster and Mask R-CNN on ResNet-50 and 101 with a pyramid.

The background is the last class, as here. Images are BGR there: the first convolution
is turned to RGB. `kvision.models.rcnn_conventions.DETECTRON2` has the arguments of a
model for the weights of its zoo.

Source: detectron2, modeling/backbone/{resnet,fpn}.py, proposal_generator/rpn.py,
roi_heads/{box_head,fast_rcnn,mask_head}.py.
"""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

import numpy as np

from kvision.weights.places import Place, Shape, convolution, hwio, norm, with_norms
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

_BODY = "backbone.bottom_up."
_HEADS = "roi_heads."
_RPN = "proposal_generator.rpn_head."
# Our layer "layer1_0_conv2" -> stage, block and what it is.
_LAYER = re.compile(r"^layer(\d)_(\d+)_(\w+)$")
_SPARE = re.compile(
    r"^(pixel_mean|pixel_std|proposal_generator\.anchor_generator\.cell_anchors\.\d+)$"
)


def recognises(names: Set[str]) -> bool:
    """Say whether a checkpoint has this layout.

    Args:
        names: of its tensors.

    Returns:
        Whether it has.
    """
    return f"{_BODY}stem.conv1.weight" in names


def renamed(name: str) -> str:
    """Return a name as it is: detectron2 has not changed them.

    Args:
        name: in the file.

    Returns:
        The name here.
    """
    return name


def is_spare(name: str) -> bool:
    """Say whether a tensor is none that a model needs.

    Args:
        name: of the tensor.

    Returns:
        Whether it is a counter of batches, anchors or constants of images, which here
        are arguments of the model, or of `LEFT_OUT`.
    """
    if name.endswith("num_batches_tracked") or _SPARE.match(name):
        return True
    return name.startswith(tuple(LEFT_OUT))


def places(model: Any, shapes: Mapping[str, Shape]) -> Iterator[Place]:
    """List where the tensors go.

    Args:
        model: a detector of `kvision.models` on "resnet50" or "resnet101".
        shapes: of the tensors of the checkpoint.

    Yields:
        A place for each variable.
    """
    layers = {layer.name: layer for layer in model.layers}
    if "pyramid" not in layers:
        return
    yield from _resnet(backbone_of(model))
    yield from _pyramid(layers["pyramid"])
    yield from _rpn(layers["rpn"])
    yield from _box_head(layers["box_head"], layers["pyramid"].channels)
    if "mask_head" in layers:
        yield from _mask_head(layers["mask_head"])


def _resnet(model: Any) -> Iterator[Place]:
    for layer in model.layers:
        name = _BODY + _resnet_name(layer.name)
        if layer.name == "conv1":
            yield from _first(layer.kernel, name)
        elif hasattr(layer, "kernel"):
            yield from convolution(layer.kernel, None, name)
        elif hasattr(layer, "moving_mean"):
            yield from norm(layer, name)


def _resnet_name(ours: str) -> str:
    """Name "layer1_0_bn2" as "res2.0.conv2.norm"."""
    found = _LAYER.match(ours)
    if not found:
        return "stem.conv1.norm" if ours == "bn1" else f"stem.{ours}"
    stage, block, part = found.groups()
    part = {"downsample_0": "shortcut", "downsample_1": "shortcut.norm"}.get(part, part)
    part = re.sub(r"^bn(\d)$", r"conv\1.norm", part)
    return f"res{int(stage) + 1}.{block}.{part}"


def _first(kernel: Any, name: str) -> Iterator[Place]:
    """Place the convolution of BGR images."""
    (place,) = convolution(kernel, None, name, is_first=True)
    yield replace(place, convert=lambda values: hwio(values[:, ::-1]))


def _block(conv: Any, batch_norm: Any, name: str) -> Iterator[Place]:
    yield from convolution(conv.kernel, conv.bias, name)
    if batch_norm is not None:
        yield from norm(batch_norm, f"{name}.norm")


def _pyramid(layer: Any) -> Iterator[Place]:
    for kind, convs, norms in (
        ("lateral", layer.laterals, layer.lateral_norms),
        ("output", layer.outputs, layer.output_norms),
    ):
        pairs = with_norms(convs, norms)
        for level, (conv, batch_norm) in zip(layer.levels, pairs, strict=True):
            yield from _block(conv, batch_norm, f"backbone.fpn_{kind}{level}")


def _rpn(layer: Any) -> Iterator[Place]:
    several = len(layer.convs) > 1
    for i, conv in enumerate(layer.convs):
        yield from _block(conv, None, f"{_RPN}conv" + several * f".conv{i}")
    yield from _block(layer.objectness, None, f"{_RPN}objectness_logits")
    yield from _block(layer.deltas, None, f"{_RPN}anchor_deltas")


def _hidden(layer: Any, name: str) -> Iterator[Place]:
    for i, (conv, batch_norm) in enumerate(with_norms(layer.convs, layer.norms), 1):
        yield from _block(conv, batch_norm, f"{_HEADS}{name}{i}")


def _box_head(layer: Any, pyramid_channels: int) -> Iterator[Place]:
    yield from _hidden(layer, "box_head.conv")
    channels = layer.conv_channels if layer.convs else pyramid_channels
    for i, dense in enumerate(layer.denses, 1):
        yield from flattened_dense(dense, f"{_HEADS}box_head.fc{i}", channels)
        channels = dense.units
    for dense, name in ((layer.classes, "cls_score"), (layer.deltas, "bbox_pred")):
        rows = np.arange(dense.units)
        yield from class_rows(dense, f"{_HEADS}box_predictor.{name}", rows)


def _mask_head(layer: Any) -> Iterator[Place]:
    yield from _hidden(layer, "mask_head.mask_fcn")
    yield from enlargement(layer.enlarge, f"{_HEADS}mask_head.deconv")
    rows = np.arange(layer.num_classes)
    yield from class_masks(layer, f"{_HEADS}mask_head.predictor", rows)
