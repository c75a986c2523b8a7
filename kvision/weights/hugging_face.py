"""The layout of Hugging Face's Transformers: ViT, DeiT, DINOv2.

The head of DINOv2 looks at the class token and the mean of the patches side by side, as
no model here does: it is left out like a head of other classes.

Source: transformers 5.23, models/vit, deit, dinov2, dinov2_with_registers.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from kvision.weights.patches import resampled
from kvision.weights.places import (
    Place,
    Shape,
    convolution,
    dense,
    hwio,
    norm,
    plain,
    side_by_side,
)
from kvision.weights.tokens import tokens_and_positions

__all__ = ["is_spare", "places", "recognises", "renamed"]

_INTERPOLATION = "bicubic"
_PROJECTION = "embeddings.patch_embeddings.projection"
_TOKENS = {
    "class_token": "embeddings.cls_token",
    "distillation_token": "embeddings.distillation_token",
    "register_tokens": "embeddings.register_tokens",
}
# What a task puts before the names of the model.
_PREFIX = re.compile(r"^(vit|deit|dinov2|dinov2_with_registers)\.")
# Names of files -> those of Transformers 5, which files may have too.
_MODERN = (
    (re.compile(r"^encoder\.layer\."), "layers."),
    (re.compile(r"\.attention\.attention\.(query|key|value)\."), r".attention.\1."),
    (re.compile(r"\.attention\.query\."), ".attention.q_proj."),
    (re.compile(r"\.attention\.key\."), ".attention.k_proj."),
    (re.compile(r"\.attention\.value\."), ".attention.v_proj."),
    (re.compile(r"\.attention\.output\.dense\."), ".attention.o_proj."),
    (re.compile(r"\.intermediate\.dense\."), ".mlp.fc1."),
    (re.compile(r"^(layers\.\d+)\.output\.dense\."), r"\1.mlp.fc2."),
    (re.compile(r"\.layernorm_before\."), ".norm1."),
    (re.compile(r"\.layernorm_after\."), ".norm2."),
    (re.compile(r"\.mlp\.weights_out\."), ".mlp.down_proj."),
    # One head, or two as in DeiT.
    (re.compile(r"^(cls_)?classifier\."), "head."),
    (re.compile(r"^distillation_classifier\."), "head_dist."),
)


def recognises(names: Set[str]) -> bool:
    """Say whether a checkpoint has this layout.

    Args:
        names: of its tensors.

    Returns:
        Whether it has.
    """
    return any(_PREFIX.sub("", name) == f"{_PROJECTION}.weight" for name in names)


def renamed(name: str) -> str:
    """Return the name of a tensor in Transformers 5, without the task's prefix.

    Args:
        name: in the file.

    Returns:
        The name here.
    """
    name = _PREFIX.sub("", name)
    for old, new in _MODERN:
        name = old.sub(new, name)
    return name


def is_spare(name: str) -> bool:
    """Say whether a tensor is for pre-training or features alone.

    Args:
        name: of the tensor.

    Returns:
        Whether it is.
    """
    return name == "embeddings.mask_token" or name.startswith("pooler.")


def places(model: Any, shapes: Mapping[str, Shape]) -> Iterator[Place]:
    """List where the tensors go.

    Args:
        model: a Vision Transformer of `kvision.models`.
        shapes: of the tensors of the checkpoint.

    Yields:
        A place for each variable.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    table = "embeddings.position_embeddings"
    yield from tokens_and_positions(layers, _TOKENS, table, shapes, _INTERPOLATION)
    for name, layer in layers.items():
        kind, _, number = name.partition("_")
        if kind == "block":
            yield from _block(layer, f"layers.{number}", shapes)
        elif name in _OTHERS:
            yield from _OTHERS[name](layer)


def _embedding(layer: Any) -> Iterator[Place]:
    if not hasattr(layer, "kernel"):  # a stem that they do not have
        return
    to_size = resampled(layer.kernel, _INTERPOLATION)
    yield from convolution(
        layer.kernel,
        layer.bias,
        _PROJECTION,
        lambda kernel: to_size(hwio(kernel)),
        is_first=True,
    )


def _block(layer: Any, name: str, shapes: Mapping[str, Shape]) -> Iterator[Place]:
    yield from norm(layer.norm1, f"{name}.norm1")
    parts = [f"{name}.attention.{part}_proj" for part in "qkv"]
    yield from side_by_side(layer.attention.qkv, parts)
    yield from dense(layer.attention.projection, f"{name}.attention.o_proj")
    yield from norm(layer.norm2, f"{name}.norm2")
    yield from _mlp(layer.mlp, f"{name}.mlp", shapes)
    if layer.layer_scale1 is not None:
        yield from plain(layer.layer_scale1.gamma, f"{name}.layer_scale1.lambda1")
        yield from plain(layer.layer_scale2.gamma, f"{name}.layer_scale2.lambda1")


def _mlp(layer: Any, name: str, shapes: Mapping[str, Shape]) -> Iterator[Place]:
    """Place two products; where one gates the other, the first is of two halves."""
    if layer.fc1.kernel.shape[1] == layer.fc2.kernel.shape[0]:
        yield from dense(layer.fc1, f"{name}.fc1")
        yield from dense(layer.fc2, f"{name}.fc2")
        return
    if f"{name}.weights_in.weight" in shapes:
        yield from dense(layer.fc1, f"{name}.weights_in")
    else:
        yield from side_by_side(layer.fc1, [f"{name}.gate_proj", f"{name}.up_proj"])
    yield from dense(layer.fc2, f"{name}.down_proj")


_OTHERS: dict[str, Callable[[Any], Iterator[Place]]] = {
    "patch_embedding": _embedding,
    "norm": lambda layer: norm(layer, "layernorm"),
    "representation": lambda layer: dense(layer, "pooler.dense"),
    "head": lambda layer: dense(layer, "head", is_head=True),
    "head_dist": lambda layer: dense(layer, "head_dist", is_head=True),
}
