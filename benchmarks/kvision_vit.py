"""kvision's Vision Transformers: inference, in LiteRT too, and training."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import kvision as kv
from benchmarks.processes import run_again
from benchmarks.random_vectors import randomize_vectors
from benchmarks.turns import take_turns

Work = Callable[[], object]


def build(variant: str, dtype: str | None = None) -> keras.Model:
    """Build a model whose weights are all random."""
    keras.utils.set_random_seed(0)
    model = kv.models.vit(variant, image_size=(224, 224), dtype=dtype)
    randomize_vectors(model, 0.02)
    return model


def images_of(number: int) -> np.ndarray:
    """Return images (number, 224, 224, 3)."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (number, 224, 224, 3), dtype=np.uint8)


def infer(arguments: argparse.Namespace) -> Work:
    """Return a function that classifies a batch."""
    images = images_of(arguments.batch)
    # In the precision in which it predicts, so that there is one copy of the weights.
    model = build(arguments.variant, arguments.precision)
    fast = kv.models.for_inference(model, arguments.precision)
    return lambda: fast.predict_on_batch(images)


def infer_in_tflite(arguments: argparse.Namespace) -> Work:
    """Return a function that classifies one image in LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    image = images_of(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vit.tflite"
        run_again("benchmarks.kvision_vit", f"--export={path}")
        interpreter = Interpreter(str(path), num_threads=2)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    outcome = interpreter.get_output_details()[0]["index"]

    def run() -> object:
        interpreter.set_tensor(entry, image)
        interpreter.invoke()
        return interpreter.get_tensor(outcome)

    return run


def export(arguments: argparse.Namespace) -> None:
    """Write a TFLite file."""
    kind = arguments.precision
    kv.export.tflite(
        build(arguments.variant),
        arguments.export,
        quantize=kind,
        calibration=images_of(2) if kind == "int8" else None,
    )


def train(arguments: argparse.Namespace) -> Work:
    """Return a function that takes a step with AdamW."""
    half = arguments.precision == "bfloat16"
    model = build(arguments.variant, "mixed_bfloat16" if half else "float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=False)
    images = tf.random.uniform((arguments.batch, 224, 224, 3), 0, 255)
    labels = tf.zeros((arguments.batch,), tf.int32)
    return lambda: model.train_on_batch(images, labels)


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--export", type=Path, help="a TFLite file to write instead")
    arguments = parser.parse_args()
    if arguments.export:
        export(arguments)
        return
    in_keras = arguments.precision in ("float32", "bfloat16")
    prepare = train if arguments.train else infer if in_keras else infer_in_tflite
    take_turns(lambda: prepare(arguments), "tensorflow", "keras", "ai-edge-litert")


if __name__ == "__main__":
    main()
