"""Where each tensor of timm's transformers goes in kvision's.

Used by the parity tests only; `kvision.weights` will have the map for users.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tests.parity.torchvision_map import Entry, oihw_to_hwio

Array = np.ndarray

_BACKBONE = "patch_embed.backbone"


def entries(model: keras.Model) -> list[Entry]:
    """List all tensors of a classifier of `kvision.models`, with timm's names."""
    found: list[Entry] = []
    for layer in model.layers:
        if layer.weights:
            found += _of_layer(layer)
    if not any(f"{_BACKBONE}.stages" in entry.name for entry in found):
        # timm gives the stem no name of its own where there is nothing else.
        found = [e._replace(name=e.name.replace(".stem.", ".")) for e in found]
    return found


def load(model: keras.Model, tensor_of: Callable[[str, tuple], Array]) -> None:
    """Set every weight of the model.

    Args:
        model: a classifier of `kvision.models`.
        tensor_of: (timm's name, torch's shape) -> tensor.
    """
    found = entries(model)
    known = {id(entry.variable) for entry in found}
    missing = [w.path for w in model.trainable_variables if id(w) not in known]
    assert not missing, f"no name for {missing}"
    assert len(known) == len(found)
    for entry in found:
        values = tensor_of(entry.name, entry.shape)
        assert values.shape == entry.shape, (entry.name, values.shape, entry.shape)
        entry.variable.assign(entry.convert(values))


def _of_layer(layer: Any) -> Iterator[Entry]:
    stage, _, rest = layer.name.partition("_")
    if stage == "stem" or (rest[:5] == "block" and rest[5].isdigit()):
        yield from _resnet(layer)
    elif stage[:5] == "stage":
        yield from _twins(layer, int(stage[5:]), rest)
    elif stage == "block":
        yield from _block(layer, f"blocks.{rest}")
    elif layer.name == "norm":
        # timm calls it otherwise where it comes after the pooling.
        name = "fc_norm" if len(layer.input.shape) == 2 else "norm"
        yield from _norm(layer, name)
    else:
        yield from _OTHERS[layer.name](layer)


def _plain(variable: Any, name: str) -> Iterator[Entry]:
    yield Entry(name, tuple(variable.shape), variable, np.asarray)


def _norm(layer: Any, name: str) -> Iterator[Entry]:
    yield from _plain(layer.gamma, f"{name}.weight")
    yield from _plain(layer.beta, f"{name}.bias")


def _dense(layer: Any, name: str) -> Iterator[Entry]:
    inputs, outputs = layer.kernel.shape
    yield Entry(f"{name}.weight", (outputs, inputs), layer.kernel, np.transpose)
    if layer.bias is not None:
        yield from _plain(layer.bias, f"{name}.bias")


def _convolution(kernel: Any, bias: Any, name: str) -> Iterator[Entry]:
    height, width, inputs, outputs = kernel.shape
    shape = (outputs, inputs, height, width)
    yield Entry(f"{name}.weight", shape, kernel, oihw_to_hwio)
    if bias is not None:
        yield from _plain(bias, f"{name}.bias")


def _depthwise(layer: Any, name: str) -> Iterator[Entry]:
    height, width, channels, _ = layer.kernel.shape
    shape = (channels, 1, height, width)
    yield Entry(
        f"{name}.weight", shape, layer.kernel, lambda k: k.transpose(2, 3, 0, 1)
    )
    yield from _plain(layer.bias, f"{name}.bias")


def _patches(layer: Any, name: str, norm: str) -> Iterator[Entry]:
    yield from _convolution(layer.kernel, layer.bias, name)
    if layer.norm is not None:
        yield from _norm(layer.norm, norm)


def _block(layer: Any, name: str) -> Iterator[Entry]:
    yield from _norm(layer.norm1, f"{name}.norm1")
    yield from _attention(layer.attention, f"{name}.attn")
    yield from _norm(layer.norm2, f"{name}.norm2")
    yield from _dense(layer.mlp.fc1, f"{name}.mlp.fc1")
    yield from _dense(layer.mlp.fc2, f"{name}.mlp.fc2")
    if layer.layer_scale1 is not None:
        yield from _plain(layer.layer_scale1.gamma, f"{name}.ls1.gamma")
        yield from _plain(layer.layer_scale2.gamma, f"{name}.ls2.gamma")


def _attention(layer: Any, name: str) -> Iterator[Entry]:
    products = {
        "qkv": "qkv",
        "query": "q",
        "key_value": "kv",
        "projection": "proj",
    }
    for ours, theirs in products.items():
        if hasattr(layer, ours):
            yield from _dense(getattr(layer, ours), f"{name}.{theirs}")
    for ours, theirs in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
        if getattr(layer, ours, None) is not None:
            yield from _norm(getattr(layer, ours), f"{name}.{theirs}")
    if getattr(layer, "reduce", None) is not None:
        yield from _patches(layer.reduce, f"{name}.sr", f"{name}.norm")


def _attention_pooling(layer: Any) -> Iterator[Entry]:
    name = "attn_pool"
    yield from _plain(layer.probe, f"{name}.latent")
    yield from _attention(layer, name)
    yield from _norm(layer.norm, f"{name}.norm")
    yield from _dense(layer.mlp.fc1, f"{name}.mlp.fc1")
    yield from _dense(layer.mlp.fc2, f"{name}.mlp.fc2")


def _twins(layer: Any, stage: int, rest: str) -> Iterator[Entry]:
    if rest == "patch_embedding":
        name = f"patch_embeds.{stage}"
        yield from _patches(layer, f"{name}.proj", f"{name}.norm")
    elif rest == "position_embedding":
        yield from _depthwise(layer.convolution, f"pos_block.{stage}.proj.0")
    else:
        yield from _block(layer, f"blocks.{stage}.{rest.removeprefix('block_')}")


def _resnet(layer: Any) -> Iterator[Entry]:
    """Layers "stem_conv", "stage0_block1_2_norm", "stage0_block0_shortcut_conv"."""
    *place, kind = layer.name.split("_")
    if place == ["stem"]:
        name = f"{_BACKBONE}.stem.{kind}"
    else:
        stage, block, part = place
        name = f"{_BACKBONE}.stages.{stage[5:]}.blocks.{block[5:]}"
        name += f".downsample.{kind}" if part == "shortcut" else f".{kind}{part}"
    if kind == "conv":
        yield from _convolution(layer.kernel, None, name)
    else:
        yield from _norm(layer, name)


_OTHERS: dict[str, Callable[[Any], Iterator[Entry]]] = {
    "patch_embedding": lambda layer: _patches(
        layer, "patch_embed.proj", "patch_embed.norm"
    ),
    "class_token": lambda layer: _plain(layer.tokens, "cls_token"),
    "distillation_token": lambda layer: _plain(layer.tokens, "dist_token"),
    "register_tokens": lambda layer: _plain(layer.tokens, "reg_token"),
    "position_embedding": lambda layer: _plain(layer.table, "pos_embed"),
    "pre_norm": lambda layer: _norm(layer, "norm_pre"),
    "pooling": _attention_pooling,
    "head": lambda layer: _dense(layer, "head"),
    "head_dist": lambda layer: _dense(layer, "head_dist"),
}
