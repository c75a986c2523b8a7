"""COCO scores of boxes and masks as the scripts around pycocotools compute them.

Masks are pasted beforehand, or by torchvision, which pycocotools leaves to others.
"""

import argparse
import contextlib
import io
from collections.abc import Callable

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection.roi_heads import paste_masks_in_image

from benchmarks.evaluation_data import CATEGORIES, SIZE, pool_of, truth_of
from benchmarks.turns import take_turns


def prepare(arguments: argparse.Namespace) -> Callable[[], object]:
    """Return a function that encodes and scores all detections."""
    pool = pool_of()
    pasted = {} if arguments.paste else {id(photo): paste(photo) for photo in pool}
    truth = COCO()
    truth.dataset = {"info": {}, **truth_of(pool, arguments.images)}
    truth.createIndex()

    def run() -> object:
        results: list[dict] = []
        for image_id in range(arguments.images):
            photo = pool[image_id % len(pool)]
            masks = paste(photo) if arguments.paste else pasted[id(photo)]
            results += results_of(image_id, photo, masks)
        found = truth.loadRes(results)
        return [score(truth, found, kind) for kind in ("bbox", "segm")]

    return run


def paste(photo: dict[str, np.ndarray]) -> np.ndarray:
    """Paste masks as torchvision's detectors do, laid out as pycocotools wants them."""
    grids, boxes = (torch.from_numpy(photo[name]) for name in ("masks", "boxes"))
    masks = paste_masks_in_image(grids[:, None], boxes, SIZE)[:, 0] > 0.5
    return np.asfortranarray(masks.numpy().transpose(1, 2, 0), np.uint8)


def results_of(
    image_id: int, photo: dict[str, np.ndarray], masks: np.ndarray
) -> list[dict]:
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
            coco_mask.encode(masks),
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
    parser.add_argument("--paste", action="store_true")
    arguments = parser.parse_args()
    take_turns(lambda: prepare(arguments), "pycocotools", "torchvision")


if __name__ == "__main__":
    main()
