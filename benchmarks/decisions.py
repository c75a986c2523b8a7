"""Whether exports of a ViT-B/16 decide as it does, after it was trained on X-rays.

    python -m benchmarks.decisions --data pneumoniamnist.npz --steps 150

trains a ViT-B/16 of 224 px on the training images, in bfloat16, and runs its exports on
the test images: the share that keep their top class, and the correlation of logits.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kvision as kv
from kvision.export.interpreter import runner

_SIZE = (224, 224)


def train(data: Path, steps: int) -> keras.Model:
    """Train a classifier of two classes."""
    model = kv.models.vit(
        "B/16", image_size=_SIZE, num_classes=2, dtype="mixed_bfloat16"
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-6, steps - 20, warmup_target=1e-4, warmup_steps=20
    )
    model.compile(
        keras.optimizers.AdamW(schedule, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    images = kv.data.arrays(
        data, image_size=_SIZE, batch_size=16, augment=False, first_epoch=0
    )
    model.fit(images, steps_per_epoch=steps // 5, epochs=5, verbose=2)
    return model


def exports(
    model: keras.Model, images: np.ndarray, folder: Path
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Export in all forms of fewer bits; return each as a function of images."""
    forms: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for kind in ("dynamic", "int8"):
        path = folder / f"{kind}.tflite"
        calibration = images[:50] if kind == "int8" else None
        kv.export.tflite(model, path, quantize=kind, calibration=calibration)
        run = runner(path.read_bytes())
        forms[f"TFLite {kind}"] = lambda x, run=run: np.concatenate(
            [run(images=one[None])["logits"] for one in x]
        )
    fast = kv.models.for_inference(model, "bfloat16")
    forms["for_inference bfloat16"] = lambda x: fast.predict(x, batch_size=8, verbose=0)
    return forms


def main() -> None:
    """Train, export, compare, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--images", type=int, default=200, help="test images compared")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    model = train(arguments.data, arguments.steps)
    test = kv.data.arrays(
        arguments.data, image_size=_SIZE, batch_size=8, split="test", shuffle=False
    )
    batches = list(test.unbatch().shuffle(500, seed=0).take(arguments.images))
    images = np.stack([image.numpy() for image, _ in batches])
    labels = np.array([int(label) for _, label in batches])
    whole = kv.models.for_inference(model, "float32")
    expected = whole.predict(images, batch_size=8, verbose=0)
    table = Table("form", "top class kept, %", "correlation", "accuracy, %")
    accuracy = 100 * np.mean(expected.argmax(1) == labels)
    table.add_row("float32", "", "", f"{accuracy:.1f}")
    found = {"float32": {"accuracy": accuracy}}
    with tempfile.TemporaryDirectory() as folder:
        for name, run in exports(model, images, Path(folder)).items():
            logits = run(images)
            kept = 100 * np.mean(logits.argmax(1) == expected.argmax(1))
            correlation = float(np.corrcoef(logits.ravel(), expected.ravel())[0, 1])
            accuracy = 100 * np.mean(logits.argmax(1) == labels)
            row = (f"{kept:.1f}", f"{correlation:.5f}", f"{accuracy:.1f}")
            table.add_row(name, *row)
            found[name] = {"kept": kept, "correlation": correlation}
    Console(width=100).print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
