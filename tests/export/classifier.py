"""Small classifiers: some random, one that learned three shapes in seconds."""

from typing import Any

import keras
import numpy as np

import kvision.models
from kvision import layers
from kvision.models.vit import ViTSize, build_vit

CLASS_NAMES = ["disc", "square", "cross"]


def small_vit(image_size: tuple[int, int] = (32, 32), **arguments: Any) -> keras.Model:
    """A Vision Transformer of two blocks whose head is not zero."""
    keras.utils.set_random_seed(1)
    settings = {"class_names": CLASS_NAMES, "name": "small"} | arguments
    dtype = settings.get("dtype")
    stem = layers.PatchEmbedding(48, 8, dtype=dtype, name="patch_embedding")
    model = build_vit(ViTSize(48, 2, 4, 96), stem, image_size=image_size, **settings)
    rng = np.random.default_rng(0)
    for name in ("head", "head_dist"):
        if name in {layer.name for layer in model.layers}:
            head = model.get_layer(name)
            head.kernel.assign(rng.normal(0, 0.5, head.kernel.shape))
    return model


def shapes(
    number: int, size: int = 32, seed: int = 0, tint: int = 90
) -> tuple[np.ndarray, np.ndarray]:
    """Reddish discs, greenish squares, bluish crosses: images uint8 and labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    labels = rng.integers(0, 3, number).astype(np.int32)
    images = np.empty((number, size, size, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        radius = rng.uniform(0.2, 0.35) * size
        centre = rng.uniform(radius, size - radius, 2)
        v, u = np.abs(y - centre[0]), np.abs(x - centre[1])
        inside = (
            u**2 + v**2 < radius**2,
            np.maximum(u, v) < radius * 0.85,
            (np.minimum(u, v) < radius * 0.3) & (np.maximum(u, v) < radius),
        )[label]
        colours = rng.uniform(0, 255, (2, 3))
        colours[0] *= 0.6
        colours[0, label] += tint
        values = np.where(inside[..., None], colours[0], colours[1])
        image[:] = np.clip(values + rng.normal(0, 6, values.shape), 0, 255)
    return images, labels


def train(model: keras.Model, epochs: int = 8) -> keras.Model:
    """Let a model learn `shapes`."""
    images, labels = shapes(800)
    model.compile(
        keras.optimizers.AdamW(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(images, labels, batch_size=50, epochs=epochs, verbose=0)
    return model


def region_vit(num_regions: int = 3, **arguments: Any) -> keras.Model:
    """A model of mixed resolution that is told where to look closely."""
    keras.utils.set_random_seed(1)
    settings: dict[str, Any] = {"image_size": (64, 96), "name": "regional"} | arguments
    model = kvision.models.mixed_resolution_vit(
        "Lite-2/16",
        scorer="given",
        num_regions=num_regions,
        class_names=CLASS_NAMES,
        **settings,
    )
    head = model.get_layer("head")
    head.kernel.assign(np.random.default_rng(0).normal(0, 0.5, head.kernel.shape))
    return model
