"""Exports of kvision's Vision Transformers, each compared with its model."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import kvision as kv
from benchmarks.turns import take_turns


def prepare(arguments: argparse.Namespace) -> Callable[[], object]:
    """Return a function that writes a file and removes it."""
    model = kv.models.vit(arguments.variant, image_size=(224, 224))
    export = getattr(kv.export, arguments.form)

    def run() -> object:
        with tempfile.TemporaryDirectory() as folder:
            suffix = ".tflite" if arguments.form == "tflite" else ""
            return export(model, Path(folder) / f"vit{suffix}")

    return run


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("--form", choices=("saved_model", "tflite"), required=True)
    arguments = parser.parse_args()
    take_turns(lambda: prepare(arguments), "tensorflow", "keras")


if __name__ == "__main__":
    main()
