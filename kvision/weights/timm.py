"""The layout of timm: ViT, DeiT, DeiT III, hybrids, Twins.

Meta's DeiT and DeiT III, the Twins of their authors and DynamicViT have the same names
but for those that `renamed` brings here.

Source: timm 1.0, models/vision_transformer.py, vision_transformer_hybrid.py, twins.py,
deit.py; raoyongming/DynamicViT, models/dyvit.py.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from kvision.weights.patches import resampled
from kvision.weights.places import (
    Place,
    Shape,
    convolution,
    dense,
    depthwise,
    hwio,
    norm,
    plain,
)
from kvision.weights.tokens import tokens_and_positions

__all__ = ["is_spare", "places", "recognises", "renamed"]

_INTERPOLATION = "bicubic_antialias"
_BACKBONE = "patch_embed.backbone"
_TOKENS = {
    "class_token": "cls_token",
    "distillation_token": "dist_token",
    "register_tokens": "reg_token",
}
# Meta's name of a layer scale -> timm's.
_GAMMA = re.compile(r"^(blocks\.\d+)\.gamma_([12])$")


def recognises(names: Set[str]) -> bool:
    """Say whether a checkpoint has this layout.

    Args:
        names: of its tensors.

    Returns:
        Whether it has.
    """
    first = {"patch_embed.proj.weight", "patch_embeds.0.proj.weight"}
    # DINOv2's own files have names of timm, and others.
    return bool(first & names) and not {"mask_token", "blocks.0.ls1.gamma"} <= names


def renamed(name: str) -> str:
    """Return timm's name of a tensor that has another one elsewhere.

    Args:
        name: in the file.

    Returns:
        The name here.
    """
    return _GAMMA.sub(r"\1.ls\2.gamma", name)


def is_spare(name: str) -> bool:
    """Say whether a tensor is none that a model needs: counters of batches.

    Args:
        name: of the tensor.

    Returns:
        Whether it is.
    """
    return name.endswith(("num_batches_tracked", "relative_position_index"))


def places(
    model: Any, shapes: Mapping[str, Shape], interpolation: str = _INTERPOLATION
) -> Iterator[Place]:
    """List where the tensors go.

    Args:
        model: a classifier of `kvision.models`.
        shapes: of the tensors of the checkpoint.
        interpolation: by which positions of another grid are resampled.

    Yields:
        A place for each variable.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    # timm gives the stem no name of its own where there is nothing else.
    has_stages = any(name.startswith("stage0_block") for name in layers)
    stem = f"{_BACKBONE}.stem" if has_stages else _BACKBONE
    yield from tokens_and_positions(layers, _TOKENS, "pos_embed", shapes, interpolation)
    scorers = [name for name in layers if name.startswith("token_scorer_")]
    for name, layer in layers.items():
        stage, _, rest = name.partition("_")
        if name in scorers:
            yield from _scorer(layer, f"score_predictor.{scorers.index(name)}")
        elif stage == "stem":
            yield from _resnet(layer, f"{stem}.{rest}")
        elif rest[:5] == "block" and rest[5].isdigit():
            yield from _resnet(layer, _unit(stage, rest))
        elif stage[:5] == "stage":
            yield from _twins(layer, int(stage[5:]), rest)
        elif stage == "block":
            yield from _block(layer, f"blocks.{rest}")
        elif name == "patch_embedding":
            yield from _embedding(layer, is_first="stem_conv" not in layers)
        elif name in _OTHERS:
            yield from _OTHERS[name](layer)


def _embedding(layer: Any, is_first: bool) -> Iterator[Place]:
    if not hasattr(layer, "kernel"):  # a stem that timm does not have
        return
    to_size = resampled(layer.kernel, _INTERPOLATION)
    yield from convolution(
        layer.kernel,
        layer.bias,
        "patch_embed.proj",
        lambda kernel: to_size(hwio(kernel)),
        is_first=is_first,
    )


def _patches(
    layer: Any, name: str, norm_name: str, is_first: bool = False
) -> Iterator[Place]:
    yield from convolution(layer.kernel, layer.bias, name, is_first=is_first)
    if layer.norm is not None:
        yield from norm(layer.norm, norm_name)


def _block(layer: Any, name: str) -> Iterator[Place]:
    yield from norm(layer.norm1, f"{name}.norm1")
    yield from _attention(layer.attention, f"{name}.attn")
    yield from norm(layer.norm2, f"{name}.norm2")
    yield from _mlp(layer.mlp, f"{name}.mlp")
    if layer.layer_scale1 is not None:
        yield from plain(layer.layer_scale1.gamma, f"{name}.ls1.gamma")
        yield from plain(layer.layer_scale2.gamma, f"{name}.ls2.gamma")


def _attention(layer: Any, name: str) -> Iterator[Place]:
    products = {"qkv": "qkv", "query": "q", "key_value": "kv", "projection": "proj"}
    for ours, theirs in products.items():
        if hasattr(layer, ours):
            yield from dense(getattr(layer, ours), f"{name}.{theirs}")
    for ours, theirs in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
        if getattr(layer, ours, None) is not None:
            yield from norm(getattr(layer, ours), f"{name}.{theirs}")
    if getattr(layer, "reduce", None) is not None:
        yield from _patches(layer.reduce, f"{name}.sr", f"{name}.norm")


def _mlp(layer: Any, name: str) -> Iterator[Place]:
    yield from dense(layer.fc1, f"{name}.fc1")
    yield from dense(layer.fc2, f"{name}.fc2")


def _attention_pooling(layer: Any) -> Iterator[Place]:
    name = "attn_pool"
    yield from plain(layer.probe, f"{name}.latent")
    yield from _attention(layer, name)
    yield from norm(layer.norm, f"{name}.norm")
    yield from _mlp(layer.mlp, f"{name}.mlp")


def _twins(layer: Any, stage: int, rest: str) -> Iterator[Place]:
    if rest == "patch_embedding":
        name = f"patch_embeds.{stage}"
        yield from _patches(layer, f"{name}.proj", f"{name}.norm", stage == 0)
    elif rest == "position_embedding":
        yield from depthwise(layer.convolution, f"pos_block.{stage}.proj.0")
    else:
        yield from _block(layer, f"blocks.{stage}.{rest.removeprefix('block_')}")


def _unit(stage: str, rest: str) -> str:
    """Name the layers "stage0_block1_2_norm", "stage0_block0_shortcut_conv"."""
    block, part, kind = rest.split("_")
    name = f"{_BACKBONE}.stages.{stage[5:]}.blocks.{block[5:]}"
    return f"{name}.downsample.{kind}" if part == "shortcut" else f"{name}.{kind}{part}"


def _resnet(layer: Any, name: str) -> Iterator[Place]:
    if hasattr(layer, "kernel"):
        is_first = layer.name == "stem_conv"
        yield from convolution(layer.kernel, None, name, is_first=is_first)
    else:
        yield from norm(layer, name)


def _scorer(layer: Any, name: str) -> Iterator[Place]:
    yield from norm(layer.norm, f"{name}.in_conv.0")
    yield from dense(layer.dense, f"{name}.in_conv.1")
    for number in (1, 2, 3):
        product = getattr(layer, f"out_dense{number}")
        yield from dense(product, f"{name}.out_conv.{2 * number - 2}")


def _last_norm(layer: Any) -> Iterator[Place]:
    # timm calls it otherwise where it comes after the pooling.
    yield from norm(layer, "fc_norm" if len(layer.input.shape) == 2 else "norm")


_OTHERS: dict[str, Callable[[Any], Iterator[Place]]] = {
    "pre_norm": functools.partial(norm, name="norm_pre"),
    "norm": _last_norm,
    "pooling": _attention_pooling,
    # Until timm 0.5, for the weights of ImageNet-21k that Google released first.
    "representation": functools.partial(dense, name="pre_logits.fc"),
    "head": functools.partial(dense, name="head", is_head=True),
    "head_dist": functools.partial(dense, name="head_dist", is_head=True),
}
