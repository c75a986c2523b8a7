"""Average precision of a model and of its exported form on the same data."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from kvision.evaluation import coco_results, coco_scores, rles

__all__ = ["average_precision", "image_batches"]

Array = np.ndarray
Run = Callable[[Array], Mapping[str, Array]]


def average_precision(
    model: Any, run: Run, data: Any, num_images: int
) -> dict[str, float]:
    """Score detections against the ground truth of a data set, in input pixels.

    Args:
        model: the detector, for its class names and sizes.
        run: images (B, H, W, C) uint8 -> dict of arrays.
        data: batches of (images, targets) as `kvision.data.coco` makes them.
        num_images: the number of images that are scored, or all if there are fewer.

    Returns:
        {"box_ap": ..., "mask_ap": ...} in 0..1, the second only if model and targets
        have masks. -1 where the data has no object.
    """
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    names = model.class_names
    truth["categories"] = [{"id": i, "name": name} for i, name in enumerate(names)]
    results: list[dict[str, Any]] = []
    masks = True
    for images, targets in image_batches(data, num_images):
        outputs = {key: np.asarray(value) for key, value in run(images).items()}
        masks = masks and "masks" in outputs and "gt_masks" in targets
        ids = len(truth["images"]) + np.arange(len(images))
        frame: dict[str, Array] = {
            "image_ids": ids,
            "scales": np.ones((len(images), 2), np.float32),
            "original_sizes": np.tile(model.image_size, (len(images), 1)),
        }
        results += coco_results(outputs, frame, range(len(names)), masks=masks)
        _add_truth(truth, ids, targets, model.image_size, masks)
    scores = coco_scores(
        truth, results, max_detections=model.max_detections, masks=masks
    )
    return {key: scores[key] for key in ("box_ap", "mask_ap") if key in scores}


def image_batches(data: Any, num_images: int) -> Iterator[tuple[Array, Any]]:
    """Take whole images out of batches of (images, targets) until there are enough.

    Args:
        data: an iterable of (images, targets), or of images alone.
        num_images: how many images to take.

    Yields:
        images (B, H, W, C) uint8, and targets: a dict of arrays, an array where they
        are no dict, an empty dict where there are none.
    """
    left = num_images
    for batch in data:
        images, targets = batch if isinstance(batch, tuple | list) else (batch, {})
        images = np.asarray(images)
        if images.ndim != 4:
            raise ValueError(
                "Expected a data set of batches (images, targets) with images "
                f"(B, H, W, C). Received images of shape {images.shape}"
            )
        images = np.clip(np.rint(images[:left]), 0, 255).astype(np.uint8)
        if isinstance(targets, Mapping):
            yield images, {key: np.asarray(v)[:left] for key, v in targets.items()}
        else:
            yield images, np.asarray(targets)[:left]
        left -= len(images)
        if left <= 0:
            return


def _add_truth(
    truth: dict[str, Any],
    ids: Array,
    targets: Mapping[str, Array],
    image_size: tuple[int, int],
    masks: bool,
) -> None:
    """Write padded targets as COCO annotations in the pixels of the input."""
    height, width = image_size
    for row, image_id in enumerate(ids.tolist()):
        truth["images"].append({"id": image_id, "height": height, "width": width})
        is_object = targets["gt_labels"][row] >= 0
        boxes = targets["gt_boxes"][row][is_object].astype(np.float64)
        labels = targets["gt_labels"][row][is_object]
        annotations = [
            {
                "id": len(truth["annotations"]) + number,
                "image_id": image_id,
                "category_id": int(label),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for number, (label, (x1, y1, x2, y2)) in enumerate(
                zip(labels.tolist(), boxes.tolist(), strict=True), 1
            )
        ]
        if masks:
            shapes = rles(targets["gt_masks"][row][is_object], boxes, image_size)
            for annotation, shape in zip(annotations, shapes, strict=True):
                annotation["segmentation"] = shape
        truth["annotations"] += annotations
