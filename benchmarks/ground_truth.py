"""The AP of ground truth given back as detections, whole and through grids over boxes.

    python -m benchmarks.ground_truth instances.json ...

Whole it must be 1. Through grids it is the most a model with masks of that size can
reach.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kvision.evaluation import coco_scores, ground_truth_results, read_annotations


def mask_ap(path: Path, mask_size: int | None) -> dict[str, float]:
    """Score the annotations of a file against themselves.

    Args:
        path: COCO json file.
        mask_size: cells along each side of the grid that masks go through, or None.

    Returns:
        `box_ap` and `mask_ap` in 0..1.
    """
    truth = read_annotations(path)
    found = ground_truth_results(truth, mask_size=mask_size)
    scores = coco_scores(truth, found, max_detections=truth.largest_count)
    return {name: scores[name] for name in ("box_ap", "mask_ap")}


def main() -> None:
    """Score, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path, nargs="+")
    arguments = parser.parse_args()
    table = Table("file", "box AP", "mask AP", "through 28 x 28", "through 56 x 56")
    results = {}
    for path in arguments.annotations:
        whole = mask_ap(path, None)
        grids = [mask_ap(path, size)["mask_ap"] for size in (28, 56)]
        results[path.name] = [whole["box_ap"], whole["mask_ap"], *grids]
        table.add_row(path.name, *(f"{value:.4f}" for value in results[path.name]))
    Console(width=100).print(table)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
