"""Images a second of the input pipeline of classifiers: kvision beside timm.

    python -m benchmarks.classification_input --data FOLDER --peer-python PYTHON

reads a folder of class folders with the augmentation of DeiT at 224 px (crop, mirror,
RandAugment, erasing; kvision mixes batches as well) in turns (A B A B), each turn in a
process of its own. The peer: torchvision's ImageFolder, timm's create_transform and
a DataLoader of two workers. Printed and written to a JSON file are images per second.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.processes import run

_HERE = Path(__file__).parent


def work(data: str, images: int, batch_size: int) -> None:
    """Read images and print how many came a second."""
    import kvision as kv

    dataset = kv.data.folders(
        data,
        image_size=(224, 224),
        batch_size=batch_size,
        augment="deit",
        first_epoch=0,
    )
    batches = iter(dataset)
    for _ in range(2):
        next(batches)
    steps = -(-images // batch_size)
    start = time.perf_counter()
    for _ in range(steps):
        next(batches)
    speed = steps * batch_size / (time.perf_counter() - start)
    # An iterator that still loads images would keep the process from ending.
    del batches
    print(json.dumps({"images_per_second": speed}), flush=True)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of class folders")
    parser.add_argument("--peer-python", help="interpreter with torchvision and timm")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("input_benchmark.json"))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.data, arguments.images, arguments.batch_size)
        return
    shared = ["--data", arguments.data, "--images", str(arguments.images)]
    shared += ["--batch-size", str(arguments.batch_size)]
    commands = {
        "kvision": [
            *(sys.executable, "-m", "benchmarks.classification_input"),
            *("--worker", *shared),
        ]
    }
    if arguments.peer_python:
        script = str(_HERE / "peers" / "timm_input.py")
        commands["timm"] = [arguments.peer_python, script, *shared]
    results: dict[str, list[dict]] = {name: [] for name in commands}
    for _ in range(arguments.turns):
        for name, command in commands.items():
            results[name].append(run(command))
    arguments.output.write_text(json.dumps(results, indent=2))
    table = Table("", "images/s", "spread")
    for name, turns in results.items():
        speeds = [turn["images_per_second"] for turn in turns]
        spread = f"{min(speeds):.1f}-{max(speeds):.1f}"
        table.add_row(name, f"{statistics.median(speeds):.1f}", spread)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
