"""Checkpoints as timm writes them, for models of ours, with seeded weights."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from kvision import models
from kvision.layers import PatchEmbedding
from kvision.models.vit import ViTSize, build_vit
from kvision.weights import timm, write_safetensors
from tests.parity.timm_seeded import weights_for

Tensors = dict[str, np.ndarray]


def small_vit(
    image_size: tuple[int, int] = (32, 32), patch_size: int = 8, **arguments: Any
) -> keras.Model:
    """Build a transformer of two narrow blocks; 16 patches."""
    stem = PatchEmbedding(32, patch_size, name="patch_embedding")
    arguments = {"num_classes": 5, **arguments}
    return build_vit(ViTSize(32, 2, 2, 64), stem, image_size=image_size, **arguments)


def small_dynamic_vit() -> keras.Model:
    return models.dynamic_vit(
        "Lite-2/8", prune_at=(1,), num_classes=5, image_size=(32, 32)
    )


def tensors_of(model: keras.Model) -> Tensors:
    """Make the tensors that timm has for a model; test_timm.py checks the names."""
    return {
        name: weights_for(name, shape)
        for place in timm.places(model, {})
        for name, shape in zip(place.names, place.shapes, strict=True)
    }


def write(folder: Path, tensors: Tensors) -> Path:
    path = folder / "vit.safetensors"
    write_safetensors(path, tensors)
    return path
