"""What ten minutes of training on nuclei come to, for some seeds.

    python -m benchmarks.nuclei_quality --data NUCLEI --weights MOBILENET

runs `kvision train detect` with the recipe `kvision.train.recipes.nuclei`, a process
for each seed, and prints AP on the validation images (200 detections an image) with the
wall time of the whole command: imports, checks of the data, tracing, training,
validation, pictures.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.processes import run
from kvision.train.recipes import nuclei

_FIGURES = ("box_ap", "box_ap50", "mask_ap", "mask_ap50")


def train(recipe: Path, seed: int, folder: Path) -> dict[str, float]:
    """Run the command and read its figures.

    Args:
        recipe: YAML file.
        seed: of weights, order, augmentation and sampling.
        folder: where the run folder is made.

    Returns:
        Seconds of the command and of the run in it, and AP in 0..1.
    """
    command = [
        *(sys.executable, "-m", "kvision_cli", "train", "detect"),
        *("--recipe", str(recipe), "--runs", str(folder), f"--seed={seed}", "--json"),
    ]
    start = time.monotonic()
    result = run(command)
    seconds = time.monotonic() - start
    scores = {name: result["scores"][name] for name in _FIGURES}
    return {"seed": seed, "seconds": seconds, "run": result["seconds"], **scores}


def main() -> None:
    """Train with each seed, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="nuclei folder")
    parser.add_argument("--weights", required=True, help="MobileNetV2 weights file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("settings", nargs="*", help="KEY=VALUE of the recipe")
    arguments = parser.parse_args()
    recipe = nuclei(arguments.data, arguments.weights)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nuclei.yaml"
        recipe.with_settings(arguments.settings).to_yaml(file)
        runs = arguments.runs or Path(folder)
        results = [train(file, seed, runs) for seed in arguments.seeds]
    table = Table(*results[0])
    for result in results:
        table.add_row(*(f"{value:.4g}" for value in result.values()))
    Console(width=100).print(table)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
