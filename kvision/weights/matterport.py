"""The layout of matterport's Mask R-CNN (`mask_rcnn_coco.h5`).

Boxes are (y, x, h, w) there, the background is the first class, the RPN has a logit for
background too, and convolutions before a batch normalisation have biases. All of it is
brought to our form here; the normalisations of the heads, constant there, are folded
into the layers before them. `kvision.models.rcnn_conventions.MATTERPORT` has the
arguments of a model for these weights.

Source: matterport/Mask_RCNN, mrcnn/model.py.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from kvision.weights.places import Place, Shape, plain
from kvision.weights.region_heads import backbone_of

__all__ = ["is_spare", "places", "recognises", "renamed"]

Array = np.ndarray

_EPSILON = 1e-3  # of Keras' batch normalisation
_STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
# Our layer "layer1_0_conv2" -> stage, block and what it is.
_LAYER = re.compile(r"^layer(\d)_(\d+)_(conv|bn|downsample_)(\d)$")
_XYWH = [1, 0, 3, 2]  # where they are in (y, x, h, w)
_DEVIATIONS = np.array([0.1, 0.1, 0.2, 0.2], np.float32)  # its RPN_BBOX_STD_DEV


def recognises(names: Set[str]) -> bool:
    """Say whether a checkpoint has this layout.

    Args:
        names: of its tensors.

    Returns:
        Whether it has.
    """
    return {"fpn_c5p5/kernel", "mrcnn_bbox_fc/kernel"} <= set(map(renamed, names))


def renamed(name: str) -> str:
    """Return layer and variable of a path in the file.

    Args:
        name: such as "rpn_model/rpn_conv_shared/kernel".

    Returns:
        Its last two parts.
    """
    return "/".join(name.split("/")[-2:])


def is_spare(name: str) -> bool:
    """Say whether a tensor is none that a model needs: there are none.

    Args:
        name: of the tensor.

    Returns:
        False.
    """
    return False


def places(model: Any, shapes: Mapping[str, Shape]) -> Iterator[Place]:
    """List where the tensors go.

    Args:
        model: a Mask R-CNN of `kvision.models` on "resnet50" or "resnet101".
        shapes: of the tensors of the checkpoint.

    Yields:
        A place for each variable.
    """
    layers = {layer.name: layer for layer in model.layers}
    if "pyramid" not in layers:
        return
    yield from _resnet(backbone_of(model))
    yield from _pyramid(layers["pyramid"])
    yield from _rpn(layers["rpn"], layers["proposals"].delta_weights)
    yield from _box_head(layers["box_head"])
    if "mask_head" in layers:
        yield from _mask_head(layers["mask_head"])


def _resnet(model: Any) -> Iterator[Place]:
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            name = f"{_convolution_of(layer.name)}/kernel"
            is_first = layer.name == "conv1"
            shape = tuple(layer.kernel.shape)
            yield Place(
                layer.kernel,
                (name,),
                (shape,),
                np.asarray,
                channels_axis=2 if is_first else None,
            )
        elif hasattr(layer, "moving_mean"):
            yield from _normalization(layer, _convolution_of(layer.name))


def _convolution_of(ours: str) -> str:
    """Name the convolution that a layer is, or that it normalises."""
    found = _LAYER.match(ours)
    if not found:
        return "conv1"
    stage, block, kind, number = found.groups()
    branch = "1" if kind == "downsample_" else "2" + "abc"[int(number) - 1]
    return f"res{int(stage) + 1}{chr(ord('a') + int(block))}_branch{branch}"


def _normalization(layer: Any, convolution: str) -> Iterator[Place]:
    """Place the statistics; the bias of the convolution moves the mean."""
    name = "bn_conv1" if convolution == "conv1" else f"bn{convolution[3:]}"
    for kind in ("gamma", "beta", "moving_variance"):
        yield from plain(getattr(layer, kind), f"{name}/{kind}")
    shape = tuple(layer.moving_mean.shape)
    yield Place(
        layer.moving_mean,
        (f"{name}/moving_mean", f"{convolution}/bias"),
        (shape, shape),
        np.subtract,
    )


def _linear(layer: Any, name: str) -> Iterator[Place]:
    yield from plain(layer.kernel, f"{name}/kernel")
    yield from plain(layer.bias, f"{name}/bias")


def _pyramid(layer: Any) -> Iterator[Place]:
    for level, lateral, output in zip(
        layer.levels, layer.laterals, layer.outputs, strict=True
    ):
        yield from _linear(lateral, f"fpn_c{level}p{level}")
        yield from _linear(output, f"fpn_p{level}")


def _rpn(layer: Any, delta_weights: Sequence[float]) -> Iterator[Place]:
    scale = _DEVIATIONS * np.array(delta_weights, np.float32)

    def in_order(values: Array) -> Array:
        rows = values.reshape(*values.shape[:-1], -1, 4)
        return rows[..., _XYWH] * scale

    yield from _linear(layer.convs[0], "rpn_conv_shared")
    yield from _turned(layer.objectness, "rpn_class_raw", 2, _foreground)
    yield from _turned(layer.deltas, "rpn_bbox_pred", 1, in_order)


def _turned(layer: Any, name: str, factor: int, turn: Any) -> Iterator[Place]:
    """Place a layer whose outputs are turned; there are `factor` times as many."""
    for variable, kind in ((layer.kernel, "kernel"), (layer.bias, "bias")):
        *inputs, outputs = variable.shape
        shape = (*inputs, factor * outputs)
        yield Place(variable, (f"{name}/{kind}",), (shape,), turn)


def _foreground(values: Array) -> Array:
    """A softmax of two logits is the sigmoid of their difference."""
    return values[..., 1::2] - values[..., ::2]


def _folded(layer: Any, convolution: str, norm: str, shape: Shape) -> Iterator[Place]:
    """Place a layer that takes its normalisation into itself."""
    channels = shape[-1]
    statistics = tuple(f"{norm}/{kind}" for kind in _STATISTICS)
    vectors = ((channels,),) * len(statistics)
    yield Place(
        layer.kernel,
        (f"{convolution}/kernel", *statistics),
        (shape, *vectors),
        lambda kernel, gamma, _, __, variance: kernel * _scale(gamma, variance),
    )
    yield Place(
        layer.bias,
        (f"{convolution}/bias", *statistics),
        ((channels,), *vectors),
        lambda bias, gamma, beta, mean, variance: (
            (bias - mean) * _scale(gamma, variance) + beta
        ),
    )


def _scale(gamma: Array, variance: Array) -> Array:
    return gamma / np.sqrt(variance + _EPSILON)


def _box_head(layer: Any) -> Iterator[Place]:
    """Place dense layers, which are convolutions of the whole region there."""
    inputs, channels = layer.denses[1].kernel.shape
    side = 7
    pooled = layer.denses[0].kernel.shape[0] // side**2
    first, second = (side, side, pooled, inputs), (1, 1, inputs, channels)
    yield from _folded(layer.denses[0], "mrcnn_class_conv1", "mrcnn_class_bn1", first)
    yield from _folded(layer.denses[1], "mrcnn_class_conv2", "mrcnn_class_bn2", second)
    classes = layer.num_classes + 1
    yield from _of_classes(
        layer.classes, "mrcnn_class_logits", classes, lambda v: np.roll(v, -1, axis=-1)
    )
    yield from _of_classes(layer.deltas, "mrcnn_bbox_fc", 4 * classes, _box_deltas)


def _box_deltas(values: Array) -> Array:
    rows = values.reshape(*values.shape[:-1], -1, 4)
    return rows[..., 1:, _XYWH]


def _of_classes(layer: Any, name: str, outputs: int, turn: Any) -> Iterator[Place]:
    inputs = layer.kernel.shape[0]
    yield Place(
        layer.kernel, (f"{name}/kernel",), ((inputs, outputs),), turn, is_head=True
    )
    yield Place(layer.bias, (f"{name}/bias",), ((outputs,),), turn, is_head=True)


def _mask_head(layer: Any) -> Iterator[Place]:
    for i, conv in enumerate(layer.convs, 1):
        shape = tuple(conv.kernel.shape)
        yield from _folded(conv, f"mrcnn_mask_conv{i}", f"mrcnn_mask_bn{i}", shape)
    inputs, outputs = layer.enlarge.kernel.shape[0], layer.channels
    yield Place(
        layer.enlarge.kernel,
        ("mrcnn_mask_deconv/kernel",),
        ((2, 2, outputs, inputs),),
        lambda kernel: kernel.transpose(3, 0, 1, 2),
    )
    yield Place(
        layer.enlarge.bias,
        ("mrcnn_mask_deconv/bias",),
        ((outputs,),),
        lambda bias: np.tile(bias, 4),
    )
    classes = layer.num_classes + 1
    yield Place(
        layer.class_kernel,
        ("mrcnn_mask/kernel",),
        ((1, 1, outputs, classes),),
        lambda kernel: kernel[0, 0, :, 1:].T,
        is_head=True,
    )
    yield Place(
        layer.class_bias,
        ("mrcnn_mask/bias",),
        ((classes,),),
        lambda bias: bias[1:],
        is_head=True,
    )
