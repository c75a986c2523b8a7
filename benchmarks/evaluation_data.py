"""Made-up annotations and detections of the size of COCO's."""

import numpy as np
from pycocotools import mask as coco_mask

__all__ = ["CATEGORIES", "SIZE", "detections_of", "pool_of", "truth_of"]

# Height and width of every photo.
SIZE = (480, 640)
CATEGORIES = list(range(1, 81))
_OBJECTS = 7
_DETECTIONS = 100
# Photos whose masks are computed; the others repeat them.
_POOL = 25

Array = np.ndarray


def pool_of(seed: int = 0) -> list[dict[str, Array]]:
    """Make the objects and the detections of a few photos.

    Args:
        seed: of the random numbers.

    Returns:
        For each photo `gt_boxes` (7, 4) and `boxes` (100, 4), xyxy in pixels,
        `gt_labels` (7,) and `labels` (100,), `scores` (100,) and `masks`
        (100, 28, 28) in 0..1: each object is found about four times, the rest
        of the detections lies anywhere.
    """
    rng = np.random.default_rng(seed)
    return [_photo(rng) for _ in range(_POOL)]


def _photo(rng: np.random.Generator) -> dict[str, Array]:
    objects = _boxes(rng, _OBJECTS)
    labels = rng.integers(0, len(CATEGORIES), _OBJECTS)
    near = rng.integers(0, _OBJECTS, 30)
    sides = np.tile(objects[near, 2:] - objects[near, :2], 2)
    found = objects[near] + rng.normal(0, 0.1, (30, 4)) * sides
    boxes = np.concatenate([found, _boxes(rng, _DETECTIONS - 30)])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 2)
    others = rng.integers(0, len(CATEGORIES), _DETECTIONS - 30)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    bumps = rng.uniform(0.7, 1.3, (_DETECTIONS, 2, 1, 1))
    return {
        "gt_boxes": objects,
        "gt_labels": labels,
        "boxes": boxes.astype(np.float32),
        "labels": np.concatenate([labels[near], others]).astype(np.int32),
        "scores": np.sort(rng.uniform(0.05, 1, _DETECTIONS))[::-1].astype(np.float32),
        "masks": np.clip(
            1.5 - (x * bumps[:, 0]) ** 2 - (y * bumps[:, 1]) ** 2, 0, 1
        ).astype(np.float32),
    }


def _boxes(rng: np.random.Generator, number: int) -> Array:
    sides = np.clip(rng.lognormal(4.2, 0.8, (number, 2)), 6, 400)
    start = rng.uniform(0, 1, (number, 2)) * (np.array(SIZE[::-1]) - sides)
    return np.concatenate([start, start + sides], axis=1)


def truth_of(pool: list[dict[str, Array]], num_images: int) -> dict:
    """Return a COCO instances file with an ellipse for each object."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    annotations: list[dict] = []
    for number in range(num_images):
        photo = pool[number % len(pool)]
        for (x1, y1, x2, y2), label in zip(
            photo["gt_boxes"].tolist(), photo["gt_labels"].tolist(), strict=True
        ):
            polygon = np.stack(
                [
                    (x1 + x2) / 2 + (x2 - x1) / 2 * np.cos(angles),
                    (y1 + y2) / 2 + (y2 - y1) / 2 * np.sin(angles),
                ],
                axis=1,
            )
            rle = coco_mask.frPyObjects([polygon.ravel().tolist()], *SIZE)[0]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": CATEGORIES[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(coco_mask.area(rle)),
                    "iscrowd": 0,
                    "segmentation": {**rle, "counts": rle["counts"].decode()},
                }
            )
    return {
        "images": [
            {"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(num_images)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in CATEGORIES],
    }


def detections_of(
    pool: list[dict[str, Array]], first: int, number: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return a batch as a detector and a data set of kvision give it."""
    photos = [pool[i % len(pool)] for i in range(first, first + number)]
    names = ("boxes", "labels", "scores", "masks")
    outputs = {name: np.stack([photo[name] for photo in photos]) for name in names}
    targets = {
        "image_ids": np.arange(first, first + number),
        "scales": np.ones((number, 2)),
        "original_sizes": np.tile(SIZE, (number, 1)),
    }
    return outputs, targets
