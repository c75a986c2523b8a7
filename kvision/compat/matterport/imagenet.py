"""ImageNet weights of `keras.applications` as the start of a backbone.

They are for images in BGR: the first convolution is turned to RGB here. (matterport
fed it RGB as it was.)
"""

import dataclasses
import re
from collections.abc import Mapping, Set

import keras
import numpy as np

from kvision.weights.checkpoint import Tensor

__all__ = ["download", "in_our_terms", "is_imagenet"]

# Source: keras.applications, resnet.py.
_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
_MD5 = {
    "resnet50": "4d473c1dd8becc155b73f8504c6f6626",
    "resnet101": "88cf7a10940856eca736dc7b7e228a21",
}

# "conv2_block1_0_conv": stage, block, which convolution, and what it is.
_LAYER = re.compile(r"conv(\d)_block(\d+)_(\d)_(conv|bn)")
_BRANCHES = ("1", "2a", "2b", "2c")


def download(backbone: str) -> str:
    """Download weights to where Keras keeps them, or find them there.

    Args:
        backbone: "resnet50" or "resnet101".

    Returns:
        Path of the file.

    Raises:
        ValueError: it cannot be downloaded.
    """
    name = f"{backbone}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    try:
        return str(
            keras.utils.get_file(
                name, _URL + name, cache_subdir="models", file_hash=_MD5[backbone]
            )
        )
    except Exception as error:  # Keras raises nothing more specific
        raise ValueError(
            f"{_URL}{name} could not be downloaded. Connect to the internet once, or "
            f"put the file into ~/.keras/models. {error}"
        ) from error


def is_imagenet(names: Set[str]) -> bool:
    """Say whether a file is of a ResNet of `keras.applications`.

    Args:
        names: of its tensors.

    Returns:
        Whether it is.
    """
    return any(name.startswith("conv1_conv/") for name in names)


def in_our_terms(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors matterport's names, and the first convolution inputs in RGB.

    Args:
        tensors: by names such as "conv2_block1_0_conv/conv2_block1_0_conv/kernel".

    Returns:
        Tensors by names such as "res2a_branch1/kernel"; others by their own.
    """
    renamed = {_matterport_name(name): tensor for name, tensor in tensors.items()}
    first = renamed.get("conv1/kernel")
    if first is not None:
        renamed["conv1/kernel"] = dataclasses.replace(
            first, load=lambda: np.ascontiguousarray(first.load()[:, :, ::-1])
        )
    return renamed


def _matterport_name(name: str) -> str:
    layer, _, variable = name.split("/", 1)[-1].rpartition("/")
    first = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}.get(layer)
    if first:
        return f"{first}/{variable}"
    found = _LAYER.fullmatch(layer)
    if not found:
        return name
    stage, block, number, kind = found.groups()
    before = "res" if kind == "conv" else "bn"
    letter = chr(ord("a") + int(block) - 1)
    return f"{before}{stage}{letter}_branch{_BRANCHES[int(number)]}/{variable}"
