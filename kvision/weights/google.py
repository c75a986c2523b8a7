"""The layout of Google's .npz files: ViT, hybrids, big_vision.

The names of a part have changed over the years; here it has those of big_vision. Blocks
may be stacked: one array for all of them.

Source: google-research/vision_transformer, vit_jax/models_vit.py, models_resnet.py and
checkpoint.py; google-research/big_vision, models/vit.py and models/proj/flexi/vit.py.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np

from kvision.weights.patches import resampled
from kvision.weights.places import Place, Shape, plain
from kvision.weights.tokens import tokens_and_positions

__all__ = ["is_spare", "places", "recognises", "renamed"]

Array = np.ndarray
Shapes = Mapping[str, Shape]

_POSITIONS = "bilinear_align_corners"
_PATCHES = "bilinear"
_ATTENTION = "MultiHeadDotProductAttention_0"
_STACK = "Transformer/encoderblock/"
# Layers such as "stem_conv", "stage0_block1_2_norm", "stage0_block0_shortcut_conv".
_RESNET = re.compile(r"(?:(stem)|stage(\d)_block(\d+)_(\d|shortcut))_(conv|norm)")
_RENAMES = (
    # Optimizers and towers around the model.
    (re.compile(r"^(opt/target/|params/img/|params/)"), ""),
    (re.compile(r"^Transformer/(posembed_input/)?pos_embedding$"), "pos_embedding"),
    # Once parts of a block were counted together, now each kind by itself.
    (re.compile(r"(?<=/)MultiHeadDotProductAttention_1(?=/)"), _ATTENTION),
    (re.compile(r"(?<=/)LayerNorm_2(?=/)"), "LayerNorm_1"),
    (re.compile(r"(?<=/)MlpBlock_3(?=/)"), "MlpBlock_0"),
    # While it was developed, the pooling had no name of its own.
    (re.compile(rf"^(probe$|{_ATTENTION}/|LayerNorm_0/|MlpBlock_0/)"), r"MAPHead_0/\1"),
)


def recognises(names: Set[str]) -> bool:
    """Say whether a checkpoint has this layout.

    Args:
        names: of its tensors.

    Returns:
        Whether it has.
    """
    return {"embedding/kernel", "Transformer/encoder_norm/scale"} <= {
        renamed(name) for name in names
    }


def renamed(name: str) -> str:
    """Return the name of a tensor in big_vision of today.

    Args:
        name: in the file.

    Returns:
        The name here.
    """
    for old, new in _RENAMES:
        name = old.sub(new, name)
    return name


def is_spare(name: str) -> bool:
    """Say whether a tensor is none of the model: state of the training.

    Args:
        name: of the tensor.

    Returns:
        Whether it is.
    """
    return name.startswith(("opt/", "chrono/"))


def places(model: Any, shapes: Shapes) -> Iterator[Place]:
    """List where the tensors go.

    Args:
        model: a Vision Transformer of `kvision.models`, with or without a ResNet.
        shapes: of the tensors of the checkpoint.

    Yields:
        A place for each variable.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    yield from tokens_and_positions(
        layers, {"class_token": "cls"}, "pos_embedding", shapes, _POSITIONS
    )
    is_stacked = any(name.startswith(_STACK) for name in shapes)
    depth = sum(re.fullmatch(r"block_\d+", name) is not None for name in layers)
    for name, layer in layers.items():
        kind, _, rest = name.partition("_")
        if kind == "block" and is_stacked:
            for place in _block(layer, _STACK):
                yield _of_stack(place, int(rest), depth)
        elif kind == "block":
            yield from _block(layer, f"Transformer/encoderblock_{rest}/")
        elif name == "patch_embedding":
            yield from _embedding(layer, is_first="stem_conv" not in layers)
        elif found := _RESNET.fullmatch(name):
            yield from _resnet(layer, found, shapes)
        elif name in _OTHERS:
            yield from _OTHERS[name](layer)


def _of_stack(place: Place, number: int, depth: int) -> Place:
    """Take the arrays of one block out of those of all."""

    def convert(*stacks: Array) -> Array:
        return place.convert(*(stack[number] for stack in stacks))

    shapes = tuple((depth, *shape) for shape in place.shapes)
    return replace(place, shapes=shapes, convert=convert)


def _embedding(layer: Any, is_first: bool) -> Iterator[Place]:
    if not hasattr(layer, "kernel"):  # a stem that they do not have
        return
    resize = resampled(layer.kernel, _PATCHES)
    for place in _kernel(layer.kernel, "embedding", is_first):
        yield replace(place, resize=resize)
    if layer.bias is not None:
        yield from plain(layer.bias, "embedding/bias")


def _kernel(variable: Any, name: str, is_first: bool) -> Iterator[Place]:
    for place in plain(variable, f"{name}/kernel"):
        yield replace(place, channels_axis=2 if is_first else None)


def _block(layer: Any, name: str) -> Iterator[Place]:
    yield from _norm(layer.norm1, f"{name}LayerNorm_0")
    yield from _attention(layer.attention, f"{name}{_ATTENTION}")
    yield from _norm(layer.norm2, f"{name}LayerNorm_1")
    yield from _mlp(layer.mlp, f"{name}MlpBlock_0")


def _attention(layer: Any, name: str) -> Iterator[Place]:
    """Place queries, keys and values, whatever is computed at once here."""
    products = {
        "qkv": ("query", "key", "value"),
        "query": ("query",),
        "key_value": ("key", "value"),
    }
    for ours, theirs in products.items():
        if hasattr(layer, ours):
            parts = [f"{name}/{part}" for part in theirs]
            yield from _to_heads(getattr(layer, ours), parts, layer.num_heads)
    kernel, bias = layer.projection.kernel, layer.projection.bias
    width = kernel.shape[0]
    shape = (layer.num_heads, width // layer.num_heads, width)
    yield Place(
        kernel, (f"{name}/out/kernel",), (shape,), lambda k: k.reshape(width, width)
    )
    yield from plain(bias, f"{name}/out/bias")


def _to_heads(layer: Any, names: Sequence[str], num_heads: int) -> Iterator[Place]:
    """Place products whose outputs are laid out by heads: (D, H, d)."""
    width, outputs = layer.kernel.shape
    heads = (num_heads, outputs // len(names) // num_heads)
    variables: dict[str, tuple[Any, Shape]] = {
        "kernel": (layer.kernel, (width, *heads))
    }
    if layer.bias is not None:
        variables["bias"] = (layer.bias, heads)
    for kind, (variable, shape) in variables.items():
        yield Place(
            variable,
            tuple(f"{name}/{kind}" for name in names),
            (shape,) * len(names),
            functools.partial(_joined, leading=shape[:-2]),
        )


def _joined(*parts: Array, leading: Shape) -> Array:
    return np.concatenate([part.reshape(*leading, -1) for part in parts], axis=-1)


def _norm(layer: Any, name: str) -> Iterator[Place]:
    yield from plain(layer.gamma, f"{name}/scale")
    yield from plain(layer.beta, f"{name}/bias")


def _resnet(layer: Any, place: re.Match[str], shapes: Shapes) -> Iterator[Place]:
    stem, stage, unit, part, kind = place.groups()
    name, suffix = "", "_root"
    if stem is None:
        name = f"block{int(stage) + 1}/unit{int(unit) + 1}/"
        suffix = "_proj" if part == "shortcut" else part
    if kind == "conv":
        yield from _kernel(layer.kernel, f"{name}conv{suffix}", stem is not None)
    else:
        yield from _group_norm(layer, f"{name}gn{suffix}", shapes)


def _group_norm(layer: Any, name: str, shapes: Shapes) -> Iterator[Place]:
    for place in _norm(layer, name):
        (inner,) = place.shapes
        old = (1, 1, 1, *inner)  # of flax before 0.3.6
        is_old = shapes.get(place.names[0]) == old
        yield replace(place, shapes=(old if is_old else inner,), convert=np.ravel)


def _dense(layer: Any, name: str, is_head: bool = False) -> Iterator[Place]:
    yield from plain(layer.kernel, f"{name}/kernel", is_head)
    yield from plain(layer.bias, f"{name}/bias", is_head)


def _mlp(layer: Any, name: str) -> Iterator[Place]:
    yield from _dense(layer.fc1, f"{name}/Dense_0")
    yield from _dense(layer.fc2, f"{name}/Dense_1")


def _attention_pooling(layer: Any) -> Iterator[Place]:
    yield from plain(layer.probe, "MAPHead_0/probe")
    yield from _attention(layer, f"MAPHead_0/{_ATTENTION}")
    yield from _norm(layer.norm, "MAPHead_0/LayerNorm_0")
    yield from _mlp(layer.mlp, "MAPHead_0/MlpBlock_0")


_OTHERS: dict[str, Callable[[Any], Iterator[Place]]] = {
    "norm": functools.partial(_norm, name="Transformer/encoder_norm"),
    "pooling": _attention_pooling,
    "representation": functools.partial(_dense, name="pre_logits"),
    "head": functools.partial(_dense, name="head", is_head=True),
}
