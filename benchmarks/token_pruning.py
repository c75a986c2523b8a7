"""DynamicViT beside the same ViT: multiply-adds, and images a second in turns.

    python -m benchmarks.token_pruning

One process; A B A B, the median and the range of the ratios of neighbours. Keras is a
batch of `--batch-size` through `predict_on_batch`, TFLite one image in LiteRT with as
many threads as there are cores. Weights are random: time does not depend on them.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kvision as kv
from kvision.models.costs import costs_of
from kvision_edge import Classifier

Run = Callable[[], Any]


def in_keras(model: keras.Model, batch_size: int) -> Run:
    """Return a function that runs a batch."""
    shape = (batch_size, *model.input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return lambda: model.predict_on_batch(images)


def in_tflite(model: keras.Model, quantize: str, folder: Path) -> Run:
    """Export, and return a function that runs one image of the file."""
    shape = (4, *model.input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = folder / f"{model.name}-{quantize}.tflite"
    kv.export.tflite(model, path, quantize=quantize, calibration=images)
    classifier = Classifier(path)
    return lambda: classifier.classify(images[0])


def compare(plain: Run, pruned: Run, seconds: float) -> dict[str, float]:
    """Run in turns for some seconds each and return times and ratios."""
    for run in (plain, pruned, plain, pruned):
        run()
    start = time.perf_counter()
    run()
    count = max(1, round(seconds / 8 / (time.perf_counter() - start)))
    turns = [(_time(plain, count), _time(pruned, count)) for _ in range(8)]
    ratios = sorted(one / other for one, other in turns)
    return {
        "plain": statistics.median(one for one, _ in turns),
        "pruned": statistics.median(other for _, other in turns),
        "ratio": statistics.median(ratios),
        "least": ratios[0],
        "most": ratios[-1],
    }


def _time(run: Run, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


def main() -> None:
    """Count, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="S/16")
    parser.add_argument("--keep-ratio", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20, help="of each model")
    options = parser.parse_args()
    builders = {
        "plain": lambda **a: kv.models.deit(options.variant, **a),
        "pruned": lambda **a: kv.models.dynamic_vit(
            options.variant, options.keep_ratio, **a
        ),
    }
    costs = {name: costs_of(build) for name, build in builders.items()}
    saved = 1 - costs["pruned"].multiply_adds / costs["plain"].multiply_adds
    rows: dict[str, dict[str, float]] = {}
    for dtype in ("float32", "mixed_bfloat16"):
        for size in (1, options.batch_size):
            pair = [in_keras(build(dtype=dtype), size) for build in builders.values()]
            rows[f"Keras {dtype}, batch {size}"] = compare(*pair, options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        models = [build() for build in builders.values()]
        for kind in ("float32", "dynamic", "int8"):
            pair = [in_tflite(model, kind, Path(folder)) for model in models]
            rows[f"TFLite {kind}"] = compare(*pair, options.seconds)
    table = Table("", "ViT, ms", "DynamicViT, ms", "times as fast", "least", "most")
    for name, row in rows.items():
        times = [f"{1000 * row[key]:.1f}" for key in ("plain", "pruned")]
        ratios = [f"{row[key]:.2f}" for key in ("ratio", "least", "most")]
        table.add_row(name, *times, *ratios)
    console = Console(width=100)
    for name, cost in costs.items():
        console.print(f"{name}: {cost.multiply_adds:,} multiply-adds")
    console.print(f"{saved:.1%} fewer")
    console.print(table)
    print(json.dumps({"saved": saved, **rows}))


if __name__ == "__main__":
    main()
