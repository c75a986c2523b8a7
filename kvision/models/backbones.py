"""Backbones: from a name, a path or a model object to features C2 to C5."""

import difflib
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from kvision.layers.normalization import FrozenBatchNormalization
from kvision.models import resnet
from kvision.weights.loading import load

__all__ = ["bottlenecks", "build_backbone", "freeze_stages", "normalization_of"]

Pair = tuple[Any, Any]

_IMAGENET: Pair = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_MINUS_ONE_TO_ONE: Pair = (127.5, 127.5)
_NOTHING: Pair = (0.0, 1.0)
_CAFFE: Pair = ((103.939, 116.779, 123.68), 1.0)  # in BGR order
# How the weights of keras.applications want their images, by the beginning of the
# name; all others want -1 to 1.
_NORMALIZATION_OF_FAMILY = {
    "mobilenetv3": _NOTHING,  # these three rescale inside
    "efficientnet": _NOTHING,
    "convnext": _NOTHING,
    "densenet": _IMAGENET,
    "vgg": _CAFFE,
    "resnet152v2": _MINUS_ONE_TO_ONE,
    "resnet152": _CAFFE,
}

_LEVELS = (2, 3, 4, 5)


def build_backbone(
    backbone: str | keras.Model,
    image_size: tuple[int, int],
    num_channels: int = 3,
    weights: str | None = None,
    freeze_batch_norm: bool = False,
    batch_norm_epsilon: float | None = None,
    dtype: Any = None,
    *,
    stride_in_1x1: bool = False,
    pool_padding: str = "symmetric",
) -> keras.Model:
    """Build or adapt a model that gives the features of four strides.

    Args:
        backbone: "resnet50" or "resnet101" (torchvision's layout), the snake-case name
            of a `keras.applications` model such as "mobilenet_v2", or a model object
            (keras.applications, KerasHub, KerasCV, your own).
        image_size: (height, width) in pixels.
        num_channels: channels of the input.
        weights: "imagenet", None, or a path: a Keras weights file, or for "resnet50"
            and "resnet101" torchvision's ("resnet50-0676ba61.pth").
        freeze_batch_norm: whether batch normalisation uses constants.
        batch_norm_epsilon: of "resnet50" and "resnet101"; None is 1e-5.
        dtype: dtype policy; None for the global one.
        stride_in_1x1: of "resnet50" and "resnet101", see `resnet`.
        pool_padding: of "resnet50" and "resnet101", see `resnet`.

    Returns:
        Model from images (B, H, W, num_channels) to {"C2": ..., "C5": ...} with strides
        4, 8, 16 and 32.

    Raises:
        ValueError: for an unknown name, weights that are not there, or a model without
            feature maps of these strides.
    """
    if isinstance(backbone, keras.Model):
        if weights is not None:
            raise ValueError(
                "weights belong to a backbone given by name; a model object brings its "
                f"own. Received: weights={weights!r}"
            )
        model = _with_levels(backbone, image_size, num_channels)
        return _freeze_batch_norm(model) if freeze_batch_norm else model
    if backbone in resnet.VARIANTS:
        return _torchvision_resnet(
            backbone,
            image_size,
            num_channels,
            weights,
            freeze_batch_norm,
            1e-5 if batch_norm_epsilon is None else batch_norm_epsilon,
            dtype,
            stride_in_1x1=stride_in_1x1,
            pool_padding=pool_padding,
        )
    model = _application(backbone, image_size, num_channels, weights, dtype)
    model = _with_levels(model, image_size, num_channels)
    return _freeze_batch_norm(model) if freeze_batch_norm else model


def _torchvision_resnet(
    variant: str,
    image_size: tuple[int, int],
    num_channels: int,
    weights: str | None,
    freeze_batch_norm: bool,
    batch_norm_epsilon: float,
    dtype: Any,
    **arguments: Any,
) -> keras.Model:
    if weights == "imagenet":
        raise ValueError(
            f'weights="imagenet" of {variant!r} are torchvision\'s and cannot be '
            "downloaded yet. Give the path of its file (resnet50-0676ba61.pth), or use "
            "a keras.applications backbone such as 'mobilenet_v2'."
        )
    path = None if weights is None else _existing(weights)
    of_keras = path is not None and path.endswith(".weights.h5")
    # Keras finds weights in a file by the class of their layer: load, then freeze.
    freeze_now = freeze_batch_norm and not of_keras
    model = resnet.resnet(
        variant,
        image_size,
        num_channels,
        freeze_now,
        batch_norm_epsilon,
        dtype,
        **arguments,
    )
    if of_keras:
        model.load_weights(path)
        return _freeze_batch_norm(model) if freeze_batch_norm else model
    if path is not None:
        load(model, path)
    return model


def _existing(path: str) -> str:
    if not Path(path).is_file():
        raise ValueError(
            "weights must be 'imagenet', None or the path of a weights file. "
            f"No such file: {path}"
        )
    return path


def _plain(name: str) -> str:
    """Write a name without capitals and underscores: both spellings are then equal."""
    return name.replace("_", "").lower()


def _application(
    name: str,
    image_size: tuple[int, int],
    num_channels: int,
    weights: str | None,
    dtype: Any,
) -> keras.Model:
    applications: dict[str, Callable[..., keras.Model]] = {
        _plain(key): value
        for key, value in vars(keras.applications).items()
        if key[0].isupper()
    }
    builder = applications.get(_plain(name))
    if builder is None:
        known = sorted({*applications, *resnet.VARIANTS})
        close = difflib.get_close_matches(_plain(name), known, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(
            "backbone must be 'resnet50', 'resnet101', the name of a "
            "keras.applications model such as 'mobilenet_v2', or a keras.Model. "
            f"Received: backbone={name!r}.{hint}"
        )
    if weights not in (None, "imagenet"):
        weights = _existing(weights)
    if weights is not None and num_channels != 3:
        raise ValueError(
            f"weights of {name!r} are for 3 channels. Received: num_channels="
            f"{num_channels}; use weights=None"
        )
    arguments: dict[str, Any] = {}
    if "include_preprocessing" in inspect.signature(builder).parameters:
        # It divides by a constant for RGB only.
        arguments["include_preprocessing"] = num_channels == 3
    previous = keras.config.dtype_policy()
    try:
        # keras.applications takes no dtype; its layers follow the global policy.
        keras.config.set_dtype_policy(dtype or previous)
        with warnings.catch_warnings():
            # Other sizes than 224 and other channels than RGB are meant.
            warnings.filterwarnings("ignore", ".*(input_shape|input channels)")
            return builder(
                include_top=False,
                weights=weights,
                input_shape=(*image_size, num_channels),
                **arguments,
            )
    except Exception as error:  # Keras raises nothing more specific
        if "URL fetch failure" not in str(error):
            raise
        raise ValueError(
            f"weights={weights!r} of {name!r} could not be downloaded. Connect to the "
            "internet once (Keras keeps the file in ~/.keras/models), give the path of "
            f"a weights file, or train from nothing with weights=None. {error}"
        ) from error
    finally:
        keras.config.set_dtype_policy(previous)


def _with_levels(
    model: keras.Model, image_size: tuple[int, int], num_channels: int
) -> keras.Model:
    """Give the last feature map of each stride the names C2 to C5."""
    outputs = model.output
    names = [f"C{level}" for level in _LEVELS]
    if isinstance(outputs, dict) and sorted(outputs) == names:
        return model
    if isinstance(outputs, dict) and set(names) <= set(outputs):
        found = {int(name[1:]): outputs[name] for name in names}
    elif isinstance(getattr(model, "pyramid_outputs", None), dict):  # Keras CV and Hub
        found = {
            int(name[1:]): tensor for name, tensor in model.pyramid_outputs.items()
        }
    else:
        found = _last_of_each_stride(model, image_size)
    missing = [2**level for level in _LEVELS if level not in found]
    if missing:
        raise ValueError(
            f"backbone {model.name!r} has no feature map of stride {missing} at "
            f"image_size={image_size}. Use one with maps of strides 4, 8, 16 and 32, "
            'or a model whose outputs are named "C2" to "C5".'
        )
    features = {f"C{level}": found[level] for level in _LEVELS}
    # Not the list of inputs: Keras would warn that it is called with a tensor.
    return keras.Model(model.inputs[0], features, name=model.name)


def _last_of_each_stride(
    model: keras.Model, image_size: tuple[int, int]
) -> dict[int, Any]:
    """Find the last map of each stride on which all that is deeper depends.

    A map inside a block that a shortcut bypasses may come later, but it is only a part
    of what is known there: in a ResNet of version 2, a quarter of the channels.
    """
    sizes = {
        tuple(-(-side // 2**level) for side in image_size): level for level in _LEVELS
    }
    ends = bottlenecks(model)
    anywhere, unbypassed = {}, {}
    for operation in model.operations:
        shape = getattr(operation.output, "shape", ())
        if len(shape) == 4 and shape[1:3] in sizes:
            level = sizes[shape[1:3]]
            anywhere[level] = operation.output
            if operation in ends:
                unbypassed[level] = operation.output
    return anywhere | unbypassed


def bottlenecks(model: keras.Model) -> set[keras.Operation]:
    """Find the operations on whose one output all depends that comes after them."""
    position = {operation: i for i, operation in enumerate(model.operations)}
    found = set()
    farthest = 0  # the last operation that uses what an earlier one has made
    for i, operation in enumerate(model.operations):
        if farthest <= i and hasattr(operation.output, "shape"):
            found.add(operation)
        users = (node.operation for node in operation._outbound_nodes)
        farthest = max(farthest, *(position.get(user, 0) for user in users), 0)
    return found


def _freeze_batch_norm(model: keras.Model) -> keras.Model:
    """Replace batch normalisation by its frozen form, weights kept."""

    def frozen(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.axis in (-1, 3):
            return FrozenBatchNormalization(
                layer.epsilon, dtype=layer.dtype_policy, name=layer.name
            )
        return layer.__class__.from_config(layer.get_config())

    clone = keras.models.clone_model(model, clone_function=frozen)
    for layer in model.layers:
        if not layer.weights:
            continue
        target = clone.get_layer(layer.name)
        if isinstance(target, FrozenBatchNormalization):
            target.set_weights(_batch_norm_weights(layer))
        else:
            target.set_weights(layer.get_weights())
    return clone


def _batch_norm_weights(layer: keras.layers.BatchNormalization) -> list[Any]:
    mean = layer.moving_mean.numpy()
    gamma = layer.gamma.numpy() if layer.scale else mean * 0 + 1
    beta = layer.beta.numpy() if layer.center else mean * 0
    return [gamma, beta, mean, layer.moving_variance.numpy()]


def freeze_stages(backbone: keras.Model, count: int) -> None:
    """Make the first stages of a backbone untrainable.

    Args:
        backbone: model with outputs "C2" to "C5".
        count: 0 for none; 1 freezes what comes before stride 4 (the stem); 2 also the
            stage that ends in C2, and so on up to 5, the whole backbone.

    Raises:
        ValueError: if `count` is not in 0..5.
    """
    if count not in range(6):
        raise ValueError(f"frozen_stages must be in 0..5. Received: {count}")
    if count == 0:
        return
    frozen = _ancestors(backbone.output[f"C{max(count, 2)}"])
    if count == 1:
        stride_4 = tuple(backbone.output["C2"].shape[1:3])
        frozen = {layer for layer in frozen if layer.output.shape[1:3] != stride_4}
    for layer in frozen:
        layer.trainable = False


def _ancestors(tensor: Any) -> set[keras.layers.Layer]:
    """Collect the layers that a tensor depends on."""
    found: set[keras.layers.Layer] = set()
    pending = [tensor]
    while pending:
        operation, node_index, _ = pending.pop()._keras_history
        if operation in found:
            continue
        found.add(operation)
        pending.extend(operation._inbound_nodes[node_index].input_tensors)
    return found


def normalization_of(backbone: str, num_channels: int = 3) -> tuple[Pair, bool]:
    """Tell how a backbone given by name wants its images.

    Args:
        backbone: name as in `build_backbone`.
        num_channels: channels of the input; other than 3, where no pretrained weights
            exist, images are brought to -1 to 1.

    Returns:
        (mean, std) in 0-255, and whether the channels are reversed to BGR.
    """
    if num_channels != 3:
        return _MINUS_ONE_TO_ONE, False
    if backbone in resnet.VARIANTS:
        return _IMAGENET, False
    for family, pair in _NORMALIZATION_OF_FAMILY.items():
        if _plain(backbone).startswith(family):
            return pair, pair is _CAFFE
    return _MINUS_ONE_TO_ONE, False
