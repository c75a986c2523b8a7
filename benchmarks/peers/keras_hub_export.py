"""Exports of KerasHub's Vision Transformers, as Keras writes them: nothing compared."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from benchmarks.peers.keras_hub_vit import build
from benchmarks.turns import take_turns


def prepare(arguments: argparse.Namespace) -> Callable[[], object]:
    """Return a function that writes a file and removes it."""
    model = build(arguments.variant, "float32")

    def run() -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vit"
            model.export(path, verbose=False)
            if arguments.form == "tflite":
                converter = tf.lite.TFLiteConverter.from_saved_model(str(path))
                Path(folder, "vit.tflite").write_bytes(converter.convert())

    return run


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("--form", choices=("saved_model", "tflite"), required=True)
    arguments = parser.parse_args()
    take_turns(lambda: prepare(arguments), "keras-hub", "tensorflow")


if __name__ == "__main__":
    main()
