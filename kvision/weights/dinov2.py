"""The layout of DINOv2's own files: that of timm but for a few names.

Source: facebookresearch/dinov2, dinov2/models/vision_transformer.py,
layers/swiglu_ffn.py and hub/backbones.py.
"""

import re
from collections.abc import Iterator, Mapping, Set
from typing import Any

from kvision.weights import timm
from kvision.weights.places import Place, Shape

__all__ = ["is_spare", "places", "recognises", "renamed"]

# In no file of timm are these three together.
_OWN = {"mask_token", "patch_embed.proj.weight", "blocks.0.ls1.gamma"}
_REGISTERS = "reg_token"
_RENAMES = (
    (re.compile(r"^register_tokens$"), _REGISTERS),
    (re.compile(r"(?<=\.mlp)\.w12\."), ".fc1."),
    (re.compile(r"(?<=\.mlp)\.w3\."), ".fc2."),
)


def recognises(names: Set[str]) -> bool:
    """Say whether a checkpoint has this layout.

    Args:
        names: of its tensors.

    Returns:
        Whether it has.
    """
    return names >= _OWN


def renamed(name: str) -> str:
    """Return timm's name of a tensor.

    Args:
        name: in the file.

    Returns:
        The name here.
    """
    for old, new in _RENAMES:
        name = old.sub(new, name)
    return name


def is_spare(name: str) -> bool:
    """Say whether a tensor is for pre-training alone.

    Args:
        name: of the tensor.

    Returns:
        Whether it is.
    """
    return name == "mask_token"


def places(model: Any, shapes: Mapping[str, Shape]) -> Iterator[Place]:
    """List where the tensors go.

    Args:
        model: a Vision Transformer of `kvision.models`.
        shapes: of the tensors of the checkpoint.

    Yields:
        A place for each variable.
    """
    # The models with registers came later, when the rule had been mended.
    rule = "bicubic_antialias" if _REGISTERS in shapes else "bicubic_offset"
    yield from timm.places(model, shapes, rule)
