"""KerasHub's Vision Transformers, uncompiled by XLA, which is slower on a CPU."""

import argparse
from collections.abc import Callable

import keras
import keras_hub
import numpy as np

from benchmarks.turns import take_turns

Work = Callable[[], object]

# Width, depth, heads.
_SIZES = {
    "Ti/16": (192, 12, 3),
    "S/16": (384, 12, 6),
    "B/16": (768, 12, 12),
    "L/16": (1024, 24, 16),
}


def build(variant: str, precision: str) -> keras.Model:
    """Build a classifier of 1000 classes."""
    width, depth, heads = _SIZES[variant]
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(224, 224, 3),
        patch_size=(16, 16),
        num_layers=depth,
        num_heads=heads,
        hidden_dim=width,
        mlp_dim=4 * width,
        dtype=policy,
    )
    return keras_hub.models.ViTImageClassifier(
        backbone, 1000, preprocessor=None, dtype=policy
    )


def prepare(arguments: argparse.Namespace) -> Work:
    """Return a function that runs a batch."""
    model = build(arguments.variant, arguments.precision)
    shape = (arguments.batch, 224, 224, 3)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=False)
    if not arguments.train:
        return lambda: model.predict_on_batch(images)
    labels = np.zeros(arguments.batch, np.int32)
    return lambda: model.train_on_batch(images, labels)


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=_SIZES)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    take_turns(lambda: prepare(arguments), "keras-hub", "tensorflow")


if __name__ == "__main__":
    main()
