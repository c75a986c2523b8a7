"""COCO scores of boxes and masks with kvision, from a detector's outputs."""

import argparse
import sys
from collections.abc import Callable

from benchmarks.evaluation_data import CATEGORIES, detections_of, pool_of, truth_of
from benchmarks.turns import take_turns
from kvision.evaluation import coco_results, coco_scores, engine, read_annotations

_BATCH = 8


def prepare(num_images: int) -> Callable[[], object]:
    """Return a function that encodes and scores all detections."""
    pool = pool_of()
    truth = read_annotations(truth_of(pool, num_images))

    def run() -> object:
        results: list[dict] = []
        for first in range(0, num_images, _BATCH):
            number = min(_BATCH, num_images - first)
            outputs, targets = detections_of(pool, first, number)
            results += coco_results(outputs, targets, CATEGORIES)
        return coco_scores(truth, results)

    return run


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--core", action="store_true", help="without the extra `fast`")
    arguments = parser.parse_args()
    if arguments.core:
        sys.modules["faster_coco_eval"] = None  # type: ignore[assignment]
    take_turns(lambda: prepare(arguments.images), engine())


if __name__ == "__main__":
    main()
