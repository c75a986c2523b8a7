"""Small classifiers on PneumoniaMNIST: the same minutes of training, and one test.

    python -m benchmarks.pneumoniamnist --data pneumoniamnist.npz --folder RESULTS

trains every model with every seed, each in a process of its own that ends when its
minutes are over: imports are not counted, tracing and validation are. The learning rate
falls with the time that is left, so that slow and fast models end alike (Li, Yumer and
Ramanan 2020, Budgeted Training). Weights are those of the epoch with the best area
under the ROC curve on the validation images. A finished run is kept in the folder and
not begun again. When all are there, each is tested, and only then. --validation leaves
the test out: for choosing settings.
"""

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.processes import run


def small_cnn(width: int, image_size: tuple[int, int]) -> Any:
    """Build three stages of two convolutions, the usual first model."""
    import keras

    images = keras.Input((*image_size, 1), name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1)(images)
    for stage in range(3):
        for _ in range(2):
            x = keras.layers.Conv2D(width << stage, 3, padding="same", use_bias=False)(
                x
            )
            x = keras.layers.BatchNormalization(momentum=0.9)(x)
            x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, keras.layers.Dense(2, dtype="float32")(x))


def transformer(
    builder: str, variant: str, image_size: tuple[int, int], **arguments: Any
) -> Any:
    """Build one of kvision's classifiers for grey images of two classes."""
    import kvision as kv

    build = getattr(kv.models, builder)
    return build(
        variant,
        num_classes=2,
        num_channels=1,
        image_size=image_size,
        resize="stretch",
        **arguments,
    )


def small_twins(image_size: tuple[int, int]) -> Any:
    """Build a Twins-SVT of five blocks, half as wide as the smallest published one."""
    from kvision.models.twins import TwinsSize, build_twins

    size = TwinsSize((32, 64, 128, 256), (1, 1, 2, 1), (1, 2, 4, 8), window_size=7)
    return build_twins(
        size, num_classes=2, num_channels=1, image_size=image_size, resize="stretch"
    )


class Entry(NamedTuple):
    """A row of the table.

    Attributes:
        build: makes the model for images of a size.
        side: of the input in pixels; the images have 28.
        learning_rate: its peak, of AdamW.
    """

    build: Callable[..., Any]
    side: int
    learning_rate: float


def _entry(
    *names: str, side: int = 28, learning_rate: float = 1e-3, **arguments: Any
) -> Entry:
    return Entry(
        functools.partial(transformer, *names, **arguments), side, learning_rate
    )


# Sizes and learning rates by a minute of training each, on the validation images. The
# mixed-resolution ViT has as many tokens as the ViT: 5 of 8 x 8 pixels, 44 of 4 x 4.
ENTRIES = {
    "small CNN": Entry(functools.partial(small_cnn, 32), 28, 1e-3),
    "ViT": _entry("vit", "Lite-2/4"),
    "conv-stem ViT": _entry("conv_vit", "Lite-4/8", side=32),
    "mixed-resolution ViT": _entry(
        "mixed_resolution_vit", "Lite-2/8", side=32, fine_cells=11
    ),
    "DynamicViT": _entry("dynamic_vit", "Lite-2/4", prune_at=(1,)),
    "Twins-SVT": Entry(small_twins, 28, 1e-3),
}
BATCH_SIZE = 64


def train(
    name: str, seed: int, minutes: float, folder: Path, data: str, rate: float | None
) -> None:
    """Train one model in this process and keep its best weights and its figures."""
    import keras
    import numpy as np

    import kvision as kv
    from kvision.evaluation.classification import classification_scores

    start = time.monotonic()
    entry = ENTRIES[name]
    size = (entry.side, entry.side)
    keras.utils.set_random_seed(seed)
    model = entry.build(image_size=size)
    peak = entry.learning_rate if rate is None else rate
    model.compile(
        keras.optimizers.AdamW(peak, weight_decay=0.05),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    options = {"image_size": size, "channels": 1, "batch_size": BATCH_SIZE}
    train_set = kv.data.arrays(
        data,
        **options,
        augment=[kv.data.RandomPaddedCrop(padding=2)],
        label_smoothing=0.1,
        seed=seed,
        first_epoch=0,
    )
    images, labels = _part(kv.data.arrays(data, split="val", **options))

    class Budget(keras.callbacks.Callback):
        """Learning rate and end by the clock; validation after each epoch."""

        best: tuple[float, float] = (-1.0, 0.0)
        weights: Any = None
        epochs = 0

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            done = min((time.monotonic() - start) / (60 * minutes), 1.0)
            warm = min(done / 0.05, 1.0)
            share = warm * 0.5 * (1 + np.cos(np.pi * done))
            self.model.optimizer.learning_rate = peak * share

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if time.monotonic() - start > 60 * minutes:
                self.model.stop_training = True

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logits = self.model.predict_on_batch(images)
            scores = classification_scores(logits, labels, num_resamples=0)
            self.epochs += 1
            if (scores["auc"], scores["accuracy"]) > self.best:
                self.best = (scores["auc"], scores["accuracy"])
                self.weights = self.model.get_weights()

    budget = Budget()
    model.fit(
        train_set,
        epochs=10**6,
        steps_per_epoch=train_set.steps_per_epoch,
        callbacks=[budget],
        verbose=0,
        shuffle=False,
    )
    seconds = time.monotonic() - start
    model.set_weights(budget.weights)
    auc, accuracy = budget.best
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / f"{name}-{seed}.keras")
    result = {
        "parameters": model.count_params(),
        "epochs": budget.epochs,
        "seconds": seconds,
        "validation_auc": auc,
        "validation_accuracy": accuracy,
    }
    # Last: a run that has this file is finished.
    (folder / f"{name}-{seed}.json").write_text(json.dumps(result))
    print(json.dumps(result))


def _part(dataset: Any) -> tuple[Any, Any]:
    import numpy as np

    batches = list(dataset.as_numpy_iterator())
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels if labels.ndim == 1 else labels.argmax(axis=1)


def test(name: str, folder: Path, data: str, seeds: list[int]) -> dict[str, Any]:
    """Test the models of all seeds, and time one of them."""
    import keras

    import kvision as kv
    from kvision.evaluation.classification import classification_scores

    size = (ENTRIES[name].side,) * 2
    images, labels = _part(
        kv.data.arrays(
            data, split="test", image_size=size, channels=1, batch_size=BATCH_SIZE
        )
    )
    scores = {}
    for seed in seeds:
        model = keras.models.load_model(folder / f"{name}-{seed}.keras")
        logits = model.predict(images, batch_size=BATCH_SIZE, verbose=0)
        scores[seed] = classification_scores(logits, labels)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        model.predict_on_batch(images[:BATCH_SIZE])
        times.append(time.perf_counter() - start)
    chosen = max(seeds, key=lambda seed: _figures(folder, name, seed)["validation_auc"])
    result: dict[str, Any] = {"milliseconds": 1000 * min(times) / BATCH_SIZE}
    for figure in ("accuracy", "auc"):
        values = [scores[seed][figure] for seed in seeds]
        result[figure] = statistics.mean(values)
        result[f"{figure}_chosen"] = scores[chosen][figure]
        result[f"{figure}_interval"] = scores[chosen]["intervals"][figure]
    return result


def _figures(folder: Path, name: str, seed: int) -> dict[str, Any]:
    return json.loads((folder / f"{name}-{seed}.json").read_text())


def report(
    folder: Path, names: list[str], seeds: list[int], tests: dict[str, Any]
) -> None:
    """Print a table and write `table.json` beside the models."""
    columns = ("model", "parameters", "epochs", "validation AUC", "validation accuracy")
    table = Table(*columns, "test accuracy", "test AUC", "ms a sample")
    rows = {}
    for name in names:
        figures = [_figures(folder, name, seed) for seed in seeds]
        means = {
            key: statistics.mean(figure[key] for figure in figures)
            for key in figures[0]
        }
        rows[name] = {**means, **tests.get(name, {})}
        cells = [f"{means['parameters']:,.0f}", f"{means['epochs']:.0f}"]
        cells += [
            f"{means['validation_auc']:.4f}",
            f"{means['validation_accuracy']:.4f}",
        ]
        if name in tests:
            for figure in ("accuracy", "auc"):
                low, high = tests[name][f"{figure}_interval"]
                chosen = tests[name][f"{figure}_chosen"]
                cells.append(
                    f"{tests[name][figure]:.4f}; {chosen:.4f} ({low:.4f}-{high:.4f})"
                )
            cells.append(f"{tests[name]['milliseconds']:.2f}")
        table.add_row(name, *cells)
    Console(width=150).print(table)
    (folder / "table.json").write_text(json.dumps(rows, indent=1))


def main() -> None:
    """Train what is not there yet, then test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="pneumoniamnist.npz")
    parser.add_argument("--folder", type=Path, required=True, help="of the results")
    parser.add_argument("--models", nargs="+", default=list(ENTRIES), choices=ENTRIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, help="instead of the model's")
    parser.add_argument("--validation", action="store_true", help="leave the test out")
    parser.add_argument("--worker", choices=("train", "test"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "train":
        train(
            options.models[0],
            options.seeds[0],
            options.minutes,
            options.folder,
            options.data,
            options.learning_rate,
        )
        return
    if options.worker == "test":
        result = test(options.models[0], options.folder, options.data, options.seeds)
        print(json.dumps(result))
        return
    command = [
        sys.executable,
        "-m",
        "benchmarks.pneumoniamnist",
        "--data",
        options.data,
    ]
    command += ["--folder", str(options.folder), "--minutes", str(options.minutes)]
    if options.learning_rate is not None:
        command += ["--learning-rate", str(options.learning_rate)]
    for seed in options.seeds:
        for name in options.models:
            if (options.folder / f"{name}-{seed}.json").exists():
                continue
            one = ["--models", name, "--seeds", str(seed), "--worker", "train"]
            print(name, seed, run([*command, *one]), flush=True)
    tests = {}
    if not options.validation:
        seeds = [str(seed) for seed in options.seeds]
        for name in options.models:
            tests[name] = run(
                [*command, "--models", name, "--seeds", *seeds, "--worker", "test"]
            )
    report(options.folder, options.models, options.seeds, tests)


if __name__ == "__main__":
    main()
