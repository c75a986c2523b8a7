"""Where each tensor of torchvision's Mask R-CNN (v1) goes in kvision's.

Used by the parity tests only; `kvision.weights` will have the map for users.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

Array = np.ndarray


class Entry(NamedTuple):
    """One tensor: torchvision's name and shape, our variable, and how to turn it."""

    name: str
    shape: tuple[int, ...]
    variable: Any
    convert: Callable[[Array], Array]


def oihw_to_hwio(kernel: Array) -> Array:
    return kernel.transpose(2, 3, 1, 0)


def background_last(values: Array) -> Array:
    """Rows 0..K with background first -> foreground rows, then background."""
    return np.concatenate([values[1:], values[:1]])


def convolution(layer: keras.layers.Conv2D, name: str) -> Iterator[Entry]:
    height, width, inputs, outputs = layer.kernel.shape
    shape = (outputs, inputs, height, width)
    yield Entry(f"{name}.weight", shape, layer.kernel, oihw_to_hwio)
    if layer.use_bias:
        yield Entry(f"{name}.bias", (outputs,), layer.bias, np.asarray)


def normalization(layer: Any, name: str) -> Iterator[Entry]:
    pairs = {
        "weight": layer.gamma,
        "bias": layer.beta,
        "running_mean": layer.moving_mean,
        "running_var": layer.moving_variance,
    }
    for kind, variable in pairs.items():
        yield Entry(f"{name}.{kind}", tuple(variable.shape), variable, np.asarray)


def backbone(model: keras.Model) -> Iterator[Entry]:
    """Layers "layer1_0_conv1" and the like: a dot for every underscore."""
    for layer in model.layers:
        name = f"backbone.body.{layer.name.replace('_', '.')}"
        if isinstance(layer, keras.layers.Conv2D):
            yield from convolution(layer, name)
        elif hasattr(layer, "moving_mean"):
            yield from normalization(layer, name)


def pyramid(layer: Any) -> Iterator[Entry]:
    for i in range(4):
        yield from convolution(layer.laterals[i], f"backbone.fpn.inner_blocks.{i}.0")
        yield from convolution(layer.outputs[i], f"backbone.fpn.layer_blocks.{i}.0")


def rpn(layer: Any) -> Iterator[Entry]:
    yield from convolution(layer.convs[0], "rpn.head.conv.0.0")
    yield from convolution(layer.objectness, "rpn.head.cls_logits")
    yield from convolution(layer.deltas, "rpn.head.bbox_pred")


def linear(layer: keras.layers.Dense, name: str, rows: Callable) -> Iterator[Entry]:
    """A dense layer; `rows` reorders torch's output rows, of which may be more."""
    inputs, outputs = layer.kernel.shape
    if name.endswith("cls_score"):
        torch_outputs = outputs
    else:
        torch_outputs = outputs + (4 if name.endswith("bbox_pred") else 0)
    shape = (torch_outputs, inputs)
    yield Entry(f"{name}.weight", shape, layer.kernel, lambda w: rows(w).T)
    yield Entry(f"{name}.bias", (torch_outputs,), layer.bias, rows)


def box_head(layer: Any, pooled_channels: int) -> Iterator[Entry]:
    """Torch flattens (C, S, S), Keras (S, S, C); labels move down by one."""
    first, second = layer.denses
    inputs, hidden = first.kernel.shape
    side = math.isqrt(inputs // pooled_channels)

    def to_channels_last(kernel: Array) -> Array:
        kernel = kernel.reshape(hidden, pooled_channels, side, side)
        return kernel.transpose(2, 3, 1, 0).reshape(inputs, hidden)

    prefix = "roi_heads.box_head"
    yield Entry(
        f"{prefix}.fc6.weight", (hidden, inputs), first.kernel, to_channels_last
    )
    yield Entry(f"{prefix}.fc6.bias", (hidden,), first.bias, np.asarray)
    yield from linear(second, f"{prefix}.fc7", np.asarray)
    prefix = "roi_heads.box_predictor"
    yield from linear(layer.classes, f"{prefix}.cls_score", background_last)
    yield from linear(layer.deltas, f"{prefix}.bbox_pred", lambda w: w[4:])


def mask_head(layer: Any) -> Iterator[Entry]:
    """The transposed convolution is a dense layer whose columns are (dy, dx, C)."""
    for i, conv in enumerate(layer.convs):
        yield from convolution(conv, f"roi_heads.mask_head.{i}.0")
    inputs, columns = layer.enlarge.kernel.shape
    outputs = columns // 4

    def to_columns(kernel: Array) -> Array:
        return kernel.transpose(0, 2, 3, 1).reshape(inputs, columns)

    name = "roi_heads.mask_predictor.conv5_mask"
    shape = (inputs, outputs, 2, 2)
    yield Entry(f"{name}.weight", shape, layer.enlarge.kernel, to_columns)
    yield Entry(f"{name}.bias", (outputs,), layer.enlarge.bias, lambda b: np.tile(b, 4))
    name = "roi_heads.mask_predictor.mask_fcn_logits"
    classes, channels = layer.class_kernel.shape
    shape = (classes + 1, channels, 1, 1)
    yield Entry(f"{name}.weight", shape, layer.class_kernel, lambda w: w[1:, :, 0, 0])
    yield Entry(f"{name}.bias", (classes + 1,), layer.class_bias, lambda b: b[1:])


def entries(model: keras.Model) -> list[Entry]:
    """List all tensors of a Mask R-CNN on ResNet-50 or ResNet-101."""
    body = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    feature_pyramid = model.get_layer("pyramid")
    return [
        *backbone(body),
        *pyramid(feature_pyramid),
        *rpn(model.get_layer("rpn")),
        *box_head(model.get_layer("box_head"), feature_pyramid.channels),
        *mask_head(model.get_layer("mask_head")),
    ]


def load(model: keras.Model, tensor_of: Callable[[str, tuple], Array]) -> None:
    """Set every weight of the model.

    Args:
        model: a kvision Mask R-CNN on ResNet-50 or ResNet-101.
        tensor_of: (torchvision's name, torch's shape) -> tensor.
    """
    found = entries(model)
    assert len({id(entry.variable) for entry in found}) == len(model.weights)
    for entry in found:
        values = tensor_of(entry.name, entry.shape)
        assert values.shape == entry.shape, (entry.name, values.shape, entry.shape)
        entry.variable.assign(entry.convert(values))
