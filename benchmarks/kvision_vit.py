"""kvision's Vision Transformers: inference, in LiteRT too, and training."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import kvision as kv
from benchmarks.turns import take_turns

Work = Callable[[], object]


def build(variant: str, dtype: str | None = None) -> keras.Model:
    """Build a model whose weights are all random: zeros would fold away."""
    model = kv.models.vit(variant, image_size=(224, 224), dtype=dtype)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign_add(rng.normal(0, 0.02, weight.shape))
    return model


def infer(arguments: argparse.Namespace) -> Work:
    """Return a function that classifies a batch."""
    shape = (arguments.batch, 224, 224, 3)
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    if arguments.precision in ("dynamic", "int8"):
        return in_tflite(build(arguments.variant), images, arguments.precision)
    # In the precision in which it predicts, so that there is one copy of the weights.
    model = build(arguments.variant, arguments.precision)
    fast = kv.models.for_inference(model, arguments.precision)
    return lambda: fast.predict_on_batch(images)


def in_tflite(model: keras.Model, images: np.ndarray, quantize: str) -> Work:
    """Return a function that classifies one image in LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vit.tflite"
        calibration = images if quantize == "int8" else None
        kv.export.tflite(model, path, quantize=quantize, calibration=calibration)
        content = path.read_bytes()
    interpreter = Interpreter(model_content=content, num_threads=2)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    outcome = interpreter.get_output_details()[0]["index"]

    def run() -> object:
        interpreter.set_tensor(entry, images)
        interpreter.invoke()
        return interpreter.get_tensor(outcome)

    return run


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
    arguments = parser.parse_args()
    prepare = train if arguments.train else infer
    take_turns(lambda: prepare(arguments), "tensorflow", "keras", "ai-edge-litert")


if __name__ == "__main__":
    main()
