"""Training Mask R-CNN on nuclei: kvision beside torchvision, in one run.

    python -m benchmarks.nuclei --data NUCLEI --weights MOBILENET --peer-python PYTHON

trains both on the same stored batches of 256 px, four images each, in turns (A B A B),
each turn in a process of its own. Printed and written to a JSON file are images per
second, the time of the first step, the largest resident memory above that before the
model was built, and how many positive regions an image had: the mask head's work is in
proportion to them. `--positive-fraction 0.0625` allows 32, which kvision
fills and torchvision nearly fills.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.processes import run

_HERE = Path(__file__).parent


def store_batches(data: Path, path: Path, number: int, batch_size: int) -> None:
    """Write batches of training images with boxes, crops and full masks.

    Args:
        data: folder with `train.json` and `images`.
        path: `.npz` file to write.
        number: of batches.
        batch_size: images of a batch.
    """
    import kvision as kv
    from kvision.evaluation.masks import paste

    dataset = kv.data.coco(
        data / "train.json",
        data / "images",
        image_size=(256, 256),
        batch_size=batch_size,
        shuffle=True,
        seed=0,
        drop_remainder=True,
    )
    stored: dict[str, list] = {
        name: [] for name in ("images", "boxes", "counts", "crops", "masks")
    }
    for images, targets in dataset.take(number):
        targets = {name: value.numpy() for name, value in targets.items()}
        counts = (targets["gt_labels"] >= 0).sum(axis=1)
        bitmaps = np.zeros((*targets["gt_labels"].shape, 256, 32), np.uint8)
        for i, count in enumerate(counts):
            crops = targets["gt_masks"][i, :count] / np.float32(255)
            masks = paste(crops, targets["gt_boxes"][i, :count], (256, 256))
            bitmaps[i, :count] = np.packbits(masks, axis=-1)
        for name, value in (
            ("images", np.clip(images.numpy(), 0, 255).astype(np.uint8)),
            ("boxes", targets["gt_boxes"]),
            ("counts", counts),
            ("crops", targets["gt_masks"]),
            ("masks", bitmaps),
        ):
            stored[name].append(value)
    np.savez_compressed(
        path, **{name: np.stack(value) for name, value in stored.items()}
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="nuclei folder")
    parser.add_argument("--weights", required=True, help="MobileNetV2 weights file")
    parser.add_argument("--peer-python", help="interpreter that has torchvision")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--positive-fraction", type=float, default=0.25)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("nuclei_benchmark.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder) / "batches.npz"
        store_batches(arguments.data, batches, number=12, batch_size=4)
        commands = {}
        for precision in ("bfloat16", "float32"):
            shared = [str(batches), f"--steps={arguments.steps}"]
            shared.append(f"--precision={precision}")
            shared.append(f"--positive-fraction={arguments.positive_fraction}")
            commands[f"kvision {precision}"] = [
                *(sys.executable, "-m", "benchmarks.nuclei_worker", *shared),
                f"--weights={arguments.weights}",
            ]
            if arguments.peer_python:
                script = str(_HERE / "peers" / "torchvision_nuclei.py")
                commands[f"torchvision {precision}"] = [
                    *(arguments.peer_python, script, *shared)
                ]
        results: dict[str, list[dict]] = {name: [] for name in commands}
        for turn in range(arguments.turns):
            for name, command in commands.items():
                print(f"turn {turn + 1}: {name}", file=sys.stderr, flush=True)
                results[name].append(run(command))
    arguments.output.write_text(json.dumps(results, indent=2))
    report(results)


def report(results: dict[str, list[dict]]) -> None:
    """Print a table of medians."""
    table = Table("", "images/s", "spread", "first step s", "peak MB", "positives")
    for name, turns in results.items():
        speeds = [turn["images_per_second"] for turn in turns]
        table.add_row(
            name,
            f"{statistics.median(speeds):.2f}",
            f"{min(speeds):.2f}-{max(speeds):.2f}",
            f"{statistics.median(turn['first_step_seconds'] for turn in turns):.1f}",
            f"{max(turn['peak_megabytes'] for turn in turns):.0f}",
            f"{statistics.mean(turn['positives'] for turn in turns):.0f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
