"""COCO annotations made fit for scoring: every gap filled, every fault named.

pycocotools gives a score of 0 to an annotation with id 0, fails on a missing `area`
or `iscrowd`, and can crash the process on a polygon that is not finite. So it only
sees what this file has checked.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from kvision.evaluation.rle import check_rle

__all__ = ["Annotations", "read_annotations"]

Annotation = dict[str, Any]

# A coordinate beyond this many pixels outside is a fault, and pycocotools rasterises
# in proportion to it until memory ends.
_FAR = 1e5


class Annotations:
    """Ground truth of a COCO instances file, checked and completed.

    Args:
        dataset: dict with `images`, `annotations` and `categories`.
        source: what to call it in messages: a path.

    Attributes:
        image_sizes: image id -> (height, width) in pixels, or None where not stated.
        categories: category id -> name.
        boxes: annotations with `bbox`, `area` and `iscrowd`, ids from 1.
    """

    def __init__(self, dataset: dict[str, Any], source: str = "annotations") -> None:
        for key in ("images", "annotations", "categories"):
            if not isinstance(dataset, dict) or not isinstance(dataset.get(key), list):
                raise ValueError(f'{source}: no list "{key}" (COCO instances format)')
        self.source = source
        self.image_sizes = {
            image["id"]: _image_size(image) for image in dataset["images"]
        }
        self.categories = {
            category["id"]: str(category["name"]) for category in dataset["categories"]
        }
        self._refuse_duplicates(dataset)
        self.boxes = [
            self._complete(number, annotation)
            for number, annotation in enumerate(dataset["annotations"], 1)
        ]

    @cached_property
    def masks(self) -> list[Annotation]:
        """The same annotations with `segmentation` as compressed RLE."""
        return [
            {**annotation, "segmentation": self._rle(annotation)}
            for annotation in self.boxes
        ]

    @property
    def has_masks(self) -> bool:
        """Whether every annotation carries a segmentation, and there is one."""
        return bool(self.boxes) and all(
            annotation.get("segmentation") for annotation in self.boxes
        )

    @property
    def largest_count(self) -> int:
        """The number of objects, crowds apart, in the image that has most of them."""
        counts = dict.fromkeys(self.image_sizes, 0)
        for annotation in self.boxes:
            counts[annotation["image_id"]] += not annotation["iscrowd"]
        return max(counts.values(), default=0)

    def category_ids(self, class_names: Iterable[str]) -> list[int]:
        """Find the category of each class by its name.

        Args:
            class_names: names of classes, in the order of the labels.

        Returns:
            The category ids, in the same order.

        Raises:
            ValueError: a name is missing or stands for several categories.
        """
        names = list(class_names)
        known = list(self.categories.values())
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(
                f"{self.source} has no category named {missing}. "
                f"Classes asked for: {names}. Categories in the file: {known}"
            )
        twice = sorted({name for name in names if known.count(name) > 1})
        if twice:
            raise ValueError(f"{self.source} has several categories named {twice}")
        ids = {name: category for category, name in self.categories.items()}
        return [ids[name] for name in names]

    def _refuse_duplicates(self, dataset: dict[str, Any]) -> None:
        for key, unique in (
            ("images", self.image_sizes),
            ("categories", self.categories),
        ):
            if len(unique) < len(dataset[key]):
                ids = [item["id"] for item in dataset[key]]
                twice = sorted({i for i in ids if ids.count(i) > 1})[:5]
                raise ValueError(f"{self.source}: {key} share the ids {twice}")

    def _complete(self, number: int, annotation: Annotation) -> Annotation:
        """Copy an annotation with a new id and all that pycocotools needs."""
        name = self._name(annotation)
        if annotation.get("image_id") not in self.image_sizes:
            raise ValueError(f"{name}: no image {annotation.get('image_id')!r}")
        if annotation.get("category_id") not in self.categories:
            raise ValueError(f"{name}: no category {annotation.get('category_id')!r}")
        complete = {
            **annotation,
            "original_id": annotation.get("id"),
            "id": number,
            "iscrowd": int(annotation.get("iscrowd") or 0),
        }
        if complete.get("bbox") is None or complete.get("area") is None:
            self._fill_from_mask(complete)
        box = np.asarray(complete["bbox"], np.float64)
        if box.shape != (4,) or not np.isfinite(box).all():
            raise ValueError(f"{name}: bbox {complete['bbox']} is not four numbers")
        return complete

    def _fill_from_mask(self, annotation: Annotation) -> None:
        """Fill a missing box or area from the mask, or the area from the box."""
        if annotation.get("segmentation"):
            rle = self._rle(annotation)
            if annotation.get("bbox") is None:
                annotation["bbox"] = coco_mask.toBbox(rle).tolist()
            if annotation.get("area") is None:
                annotation["area"] = float(coco_mask.area(rle))
        elif annotation.get("bbox") is None:
            raise ValueError(f"{self._name(annotation)}: neither bbox nor segmentation")
        else:
            annotation["area"] = float(annotation["bbox"][2] * annotation["bbox"][3])

    def _rle(self, annotation: Annotation) -> dict[str, Any]:
        """Return an annotation's mask as compressed RLE."""
        name, size = self._name(annotation), self.image_sizes[annotation["image_id"]]
        if size is None:
            raise ValueError(
                f"{name}: image {annotation['image_id']} states no height and width, "
                "which its mask needs"
            )
        segmentation = annotation.get("segmentation")
        if not segmentation:
            raise ValueError(
                f"{name}: no segmentation. Score boxes only with masks=False, or run "
                "`kvision check`"
            )
        if isinstance(segmentation, dict):
            return _rle_from_runs(segmentation, size, name)
        return _rle_from_polygons(segmentation, size, name)

    def _name(self, annotation: Annotation) -> str:
        number = annotation.get("original_id", annotation.get("id"))
        return f"{self.source}: annotation {number!r}"


def read_annotations(
    annotations: "str | PathLike[str] | dict[str, Any] | Annotations",
) -> Annotations:
    """Read and check ground truth.

    Args:
        annotations: path of a COCO instances json, its content, or what this function
            returned before (then nothing is done again).

    Returns:
        The checked annotations.

    Raises:
        ValueError: the file or an annotation in it cannot be used; the message names
            it.
    """
    if isinstance(annotations, Annotations):
        return annotations
    if isinstance(annotations, dict):
        return Annotations(annotations)
    path = Path(annotations)
    try:
        with path.open(encoding="utf-8") as file:
            return Annotations(json.load(file), str(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _image_size(image: dict[str, Any]) -> tuple[int, int] | None:
    if image.get("height") is None or image.get("width") is None:
        return None
    return int(image["height"]), int(image["width"])


def _rle_from_runs(
    segmentation: dict[str, Any], size: tuple[int, int], name: str
) -> dict[str, Any]:
    """Check an RLE against its image and compress it if it is not yet."""
    counts = segmentation.get("counts")
    if isinstance(counts, list) and tuple(segmentation.get("size", ())) == size:
        runs = np.asarray(counts or [-1])
        if runs.sum() != size[0] * size[1] or runs.min() < 0:
            raise ValueError(f"{name}: the runs of its RLE do not add up to {size}")
        return coco_mask.frPyObjects(segmentation, *size)
    try:
        check_rle(segmentation, size)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return segmentation


def _rle_from_polygons(
    polygons: Sequence[Sequence[float]], size: tuple[int, int], name: str
) -> dict[str, Any]:
    """Check polygons and rasterise them into one RLE."""
    for polygon in polygons:
        points = np.asarray(polygon, np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise ValueError(
                f"{name}: expected polygons of 3 points or more, [x1, y1, x2, y2, ...]"
                f". Received {len(points)} numbers"
            )
        if not np.isfinite(points).all() or np.abs(points).max() > _FAR:
            raise ValueError(f"{name}: a polygon has a coordinate out of all range")
    return coco_mask.merge(coco_mask.frPyObjects([list(p) for p in polygons], *size))
