"""COCO scores of boxes and masks as the scripts around pycocotools compute them.

Its masks are pasted beforehand: pasting is not pycocotools' work.
"""

import argparse
import contextlib
import io
from collections.abc import Callable

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.evaluation_data import CATEGORIES, SIZE, pool_of, truth_of
from benchmarks.turns import take_turns
from kvision.evaluation import paste


def prepare(num_images: int) -> Callable[[], object]:
    """Return a function that encodes and scores all detections."""
    pool = pool_of()
    for photo in pool:
        pasted = paste(photo["masks"], photo["boxes"], SIZE)
        photo["pasted"] = np.asfortranarray(pasted.transpose(1, 2, 0), np.uint8)
    truth = COCO()
    truth.dataset = {"info": {}, **truth_of(pool, num_images)}
    truth.createIndex()

    def run() -> object:
        results: list[dict] = []
        for image_id in range(num_images):
            results += results_of(image_id, pool[image_id % len(pool)])
        found = truth.loadRes(results)
        return [score(truth, found, kind) for kind in ("bbox", "segm")]

    return run


def results_of(image_id: int, photo: dict[str, np.ndarray]) -> list[dict]:
    """Encode an image's detections."""
    low, high = photo["boxes"][:, :2], photo["boxes"][:, 2:]
    boxes = np.concatenate([low, high - low], axis=1).tolist()
    return [
        {
            "image_id": image_id,
            "category_id": CATEGORIES[label],
            "bbox": box,
            "score": score,
            "segmentation": rle,
        }
        for box, label, score, rle in zip(
            boxes,
            photo["labels"].tolist(),
            photo["scores"].tolist(),
            coco_mask.encode(photo["pasted"]),
            strict=True,
        )
    ]


def score(truth: COCO, found: COCO, kind: str) -> np.ndarray:
    """Match, accumulate and summarise."""
    evaluation = COCOeval(truth, found, kind)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, required=True)
    arguments = parser.parse_args()
    take_turns(lambda: prepare(arguments.images), "pycocotools")


if __name__ == "__main__":
    main()
