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
            kv.models.dynamic_vit, "Lite-4/16", prune_at=(2, 3)
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
    peak = 1e-3
    if family == "dynamic_vit":
        # As its authors do: only a model that knows something learns what to give up.
        peak = 5e-5
        for layer in trained("vit", folder).layers:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    # An epoch has 60 steps.
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, 1740, warmup_target=peak, warmup_steps=60
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


def random_vit() -> Any:
    """Build ViT-B/16 with weights of which none is zero: zeros would hide much."""
    import keras

    import kvision as kv

    keras.utils.set_random_seed(0)
    model = kv.models.vit("B/16", num_classes=1000)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if weight.path.endswith("kernel"):
            fan_in = np.prod(weight.shape[:-1])
            weight.assign(rng.normal(0, fan_in**-0.5, weight.shape))
        elif weight.path.endswith("bias"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


def full(folder: Path) -> dict[str, float]:
    """Compare all forms of ViT-B/16 with its eager logits, as shares of the largest."""
    import keras
    import tensorflow as tf

    from kvision.export import saved_model, tflite
    from kvision.export.interpreter import runner

    model, images = random_vit(), shapes(4, 224)[0]
    paths = {form: folder / f"vit_b16{form}" for form in (".keras", "", ".tflite")}
    model.save(paths[".keras"])
    saved_model(model, paths[""], images=images, overwrite=True)
    tflite(model, paths[".tflite"], images=images)
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=True)
    loaded = keras.models.load_model(paths[".keras"])
    served = tf.saved_model.load(str(paths[""])).signatures["serving_default"]
    logits = {
        "XLA": compiled(images),
        "reloaded": loaded(images, training=False),
        "SavedModel": served(images=tf.constant(images))["logits"],
        "TFLite": runner(paths[".tflite"].read_bytes())(images)["logits"],
    }
    eager = np.asarray(model(images, training=False))
    largest = np.abs(eager).max()
    found = {
        name: float(np.abs(np.asarray(values) - eager).max() / largest)
        for name, values in logits.items()
    }
    return {"between images": float(np.ptp(eager, axis=0).mean() / largest), **found}


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
