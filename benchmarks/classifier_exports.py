"""Exported classifiers of every family: do files of fewer bits keep the classes?

    python -m benchmarks.classifier_exports --folder FOLDER

trains a small model of each family on generated pictures of three classes, each in a
process of its own, exports it in every form, and runs each TFLite file on 300 pictures
that nothing has seen. What is in the folder is not trained or measured again. With
--full it is ViT-B/16 at 224 px with random weights: its logits eager, by XLA, reloaded
and exported.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.processes import run
from tests.export.classifier import CLASS_NAMES, shapes

SIDE = 64
KINDS: tuple[Any, ...] = ("float32", "float16", "dynamic", "int8")
FAMILIES = (
    "vit",
    "deit",
    "conv_vit",
    "hybrid_vit",
    "dynamic_vit",
    "mixed_resolution_vit",
    "twins_svt",
    "twins_pcpvt",
)


def pictures(number: int, seed: int) -> tuple[Any, Any]:
    """Generate images and labels of colours that a model soon tells apart."""
    return shapes(number, SIDE, seed, tint=180)


def build(family: str) -> Any:
    """Build a small model of a family: the published ones take hours to train."""
    import kvision as kv
    from kvision.models.hybrid_vit import VARIANTS
    from kvision.models.twins import TwinsSize, build_twins

    VARIANTS["R2+Lite-4/16"] = ("Lite-4", (1, 1), 2)
    widths = ((32, 64, 96, 128), (2, 2, 2, 2), (1, 2, 3, 4))
    builders: dict[str, Callable[..., Any]] = {
        "deit": functools.partial(kv.models.deit, "Lite-4/16", distilled=True),
        "hybrid_vit": functools.partial(kv.models.hybrid_vit, "R2+Lite-4/16"),
        "dynamic_vit": functools.partial(
            kv.models.dynamic_vit, "Lite-4/16", prune_at=(1, 2, 3)
        ),
        "twins_svt": functools.partial(build_twins, TwinsSize(*widths, window_size=7)),
        "twins_pcpvt": functools.partial(build_twins, TwinsSize(*widths)),
    }
    plain = functools.partial(getattr(kv.models, family), "Lite-4/16")
    builder = builders.get(family, plain)
    return builder(class_names=CLASS_NAMES, image_size=(SIDE, SIDE), name=family)


def trained(family: str, folder: Path) -> Any:
    """Train a model on generated pictures, or load it."""
    import keras

    path = folder / f"{family}.keras"
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(0)
    model = build(family)
    images, labels = pictures(3000, seed=1)
    # An epoch has 60 steps.
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, 1740, warmup_target=1e-3, warmup_steps=60
    )

    class UntilGood(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = logs["val_accuracy"] >= 0.97

    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.05, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(
        images,
        labels,
        batch_size=50,
        epochs=30,
        validation_data=pictures(300, seed=4),
        callbacks=[UntilGood()],
        verbose=0,
    )
    model.save(path)
    return model


def measure(family: str, folder: Path) -> dict[str, Any]:
    """Export a model in every form and compare each with it."""
    import tensorflow as tf

    from kvision.export import ParityError, onnx, saved_model, tflite

    model = trained(family, folder)
    unseen = pictures(300, seed=2)
    data = tf.data.Dataset.from_tensor_slices(unseen).batch(50)
    calibration = pictures(100, seed=3)[0]
    exports: dict[str, Callable[[], Any]] = {
        kind: functools.partial(
            tflite,
            model,
            folder / f"{family}-{kind}.tflite",
            quantize=kind,
            calibration=calibration,
            data=data,
            num_images=300,
        )
        for kind in KINDS
    }
    exports["ONNX"] = functools.partial(
        onnx, model, folder / f"{family}.onnx", data=data, num_images=300
    )
    exports["SavedModel"] = functools.partial(
        saved_model, model, folder / family, images=unseen[0], overwrite=True
    )
    found = {}
    for form, export in exports.items():
        try:
            parity = export()
        except ParityError as error:  # its figures are what is asked for
            parity = error.parity
        found[form] = parity.to_dict()["differences"]
    return found


def report(results: dict[str, dict[str, Any]]) -> None:
    """Print a row for each form of each family."""
    columns = ("top class kept", "left out", "correlation", "relative", "accuracy")
    table = Table("family", "form", *columns)
    for family, forms in results.items():
        for form, differences in forms.items():
            for each in differences:
                name = each["form"] if form == "SavedModel" else form
                table.add_row(family, name, *_cells(each))
    Console(width=120).print(table)


def _cells(difference: dict[str, Any]) -> list[str]:
    accuracy = difference["accuracy"]
    return [
        f"{difference['num_kept']} of {difference['num_images']}",
        str(difference["num_left_out"]),
        f"{difference['correlation']:.5f}",
        f"{difference['relative']:.1e}",
        "" if accuracy is None else " -> ".join(f"{100 * a:.1f}" for a in accuracy),
    ]


def full(folder: Path) -> dict[str, float]:
    """Compare all forms of ViT-B/16 with its eager logits, as shares of the largest."""
    import keras
    import tensorflow as tf

    import kvision as kv
    from kvision.export.interpreter import runner

    keras.utils.set_random_seed(0)
    model = kv.models.vit("B/16", num_classes=1000)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # zeros among them, which would hide much
        if weight.path.endswith(("kernel", "bias")):
            spread = (
                1 / np.sqrt(np.prod(weight.shape[:-1]))
                if "kernel" in weight.path
                else 0.1
            )
            weight.assign(rng.normal(0, spread, weight.shape))
    images = shapes(4, 224)[0]
    logits = {"eager": np.asarray(model(images, training=False))}
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=True)
    logits["XLA"] = np.asarray(compiled(images))
    model.save(folder / "vit_b16.keras")
    loaded = keras.models.load_model(folder / "vit_b16.keras")
    logits[".keras"] = np.asarray(loaded(images, training=False))
    kv.export.saved_model(model, folder / "vit_b16", images=images, overwrite=True)
    served = tf.saved_model.load(str(folder / "vit_b16")).signatures["serving_default"]
    logits["SavedModel"] = np.asarray(served(images=tf.constant(images))["logits"])
    path = folder / "vit_b16.tflite"
    kv.export.tflite(model, path, images=images)
    logits["TFLite"] = runner(path.read_bytes())(images)["logits"]
    eager = logits["eager"]
    largest = np.abs(eager).max()
    return {
        "spread between images": float(eager.std(axis=0).mean() / largest),
        **{
            name: float(np.abs(values - eager).max() / largest)
            for name, values in logits.items()
        },
    }


def main() -> None:
    """Measure every family in a process of its own, or the one model of --full."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, required=True, help="of models and files"
    )
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--full", action="store_true", help="ViT-B/16 instead")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.full:
        print(json.dumps(full(options.folder), indent=1))
        return
    if options.worker:
        print(json.dumps(measure(options.families[0], options.folder)))
        return
    command = [sys.executable, "-m", "benchmarks.classifier_exports", "--worker"]
    command += ["--folder", str(options.folder), "--families"]
    results = {}
    for family in options.families:
        path = options.folder / f"{family}.json"
        if not path.exists():
            path.write_text(json.dumps(run([*command, family])))
        results[family] = json.loads(path.read_text())
    report(results)


if __name__ == "__main__":
    main()
