"""DeiT: Vision Transformers trained on ImageNet alone, distilled ones, and DeiT III."""

from collections.abc import Sequence
from typing import Any

import keras

from kvision.models.classifier import IMAGENET
from kvision.models.vit import build_vit, patches_of

__all__ = ["deit", "deit3"]


def deit(
    variant: str = "S/16",
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    distilled: bool = False,
    **arguments: Any,
) -> keras.Model:
    """Build a DeiT: a Vision Transformer with ImageNet's mean and standard deviation.

    Args:
        variant: see `kvision.models.vit`; "Ti/16", "S/16" and "B/16" are published.
        num_classes: see `kvision.models.vit`.
        class_names: see `kvision.models.vit`.
        image_size: see `kvision.models.vit`.
        distilled: whether there is a distillation token with a head of its own. The
            logits are the mean of both heads; `kvision.train.distill` trains them.
        **arguments: keyword arguments of `kvision.models.vit.build_vit`.

    Returns:
        See `kvision.models.vit`.

    Raises:
        ValueError: for an argument out of range.

    Source: Touvron et al. 2021, Training data-efficient image transformers and
    distillation through attention; facebookresearch/deit, models.py.
    """
    size, stem = patches_of(variant, dtype=arguments.get("dtype"))
    name = f"deit_{variant.replace('/', '_')}" + ("_distilled" if distilled else "")
    defaults = {"normalization": IMAGENET, "crop_fraction": 0.9, "name": name}
    return build_vit(
        size,
        stem,
        num_classes=num_classes,
        class_names=class_names,
        image_size=image_size,
        distillation_token=distilled,
        **{**defaults, **arguments},
    )


def deit3(
    variant: str = "S/16",
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] = (224, 224),
    **arguments: Any,
) -> keras.Model:
    """Build a DeiT III: layer scale, and a class token that has no position.

    Args:
        variant: see `kvision.models.vit`; "S/16", "M/16", "B/16", "L/16" and "H/14" are
            published.
        num_classes: see `kvision.models.vit`.
        class_names: see `kvision.models.vit`.
        image_size: see `kvision.models.vit`.
        **arguments: keyword arguments of `kvision.models.vit.build_vit`.

    Returns:
        See `kvision.models.vit`.

    Raises:
        ValueError: for an argument out of range.

    Source: Touvron et al. 2022, DeiT III: Revenge of the ViT; facebookresearch/deit,
    models_v2.py.
    """
    size, stem = patches_of(variant, dtype=arguments.get("dtype"))
    defaults = {
        "normalization": IMAGENET,
        "crop_fraction": 1.0,
        "prefix_positions": False,
        "layer_scale": 1e-6,
        "drop_path_rule": "constant",
        "name": f"deit3_{variant.replace('/', '_')}",
    }
    return build_vit(
        size,
        stem,
        num_classes=num_classes,
        class_names=class_names,
        image_size=image_size,
        **{**defaults, **arguments},
    )
