"""What a detector puts out -> COCO results in the pixels of the original photos.

A COCO result is a dict `{"image_id", "category_id", "bbox": [x, y, w, h], "score"}`
with `"segmentation"` as RLE when masks are scored: plain numbers that go into a json
file as they are.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from kvision.evaluation.annotations import Annotations, read_annotations
from kvision.evaluation.masks import crop, decode, rles

__all__ = [
    "OriginalBoxes",
    "coco_results",
    "detection_results",
    "ground_truth_results",
    "original_boxes",
]

Array = np.ndarray
Result = dict[str, Any]


class OriginalBoxes(NamedTuple):
    """Boxes of one image in original pixels.

    Attributes:
        boxes: (N, 4) float32 array, xyxy, cut to the image.
        mask_boxes: (N, 4) float32 array, the same not cut: masks are laid over these.
        kept: (M,) bool array: which of the M given boxes these are. A box that lies
            wholly in the padding is not in the photo and is left out.
    """

    boxes: Array
    mask_boxes: Array
    kept: Array


def original_boxes(
    boxes: Array, scale: Sequence[float] | Array, size: Sequence[int] | Array
) -> OriginalBoxes:
    """Take boxes from the pixels of the model's input back to those of the photo.

    Args:
        boxes: (M, 4) array, xyxy in pixels of the model's input.
        scale: (y, x): pixels of the input = pixels of the photo * scale.
        size: (height, width) of the photo in pixels.

    Returns:
        The boxes that lie at least partly in the photo.
    """
    scale_y, scale_x = (float(value) for value in scale)
    height, width = (int(value) for value in size)
    factors = np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
    whole = np.asarray(boxes, np.float32) / factors
    cut = np.clip(whole, 0, np.array([width, height, width, height], np.float32))
    kept = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    return OriginalBoxes(cut[kept], whole[kept], kept)


def coco_results(
    outputs: Mapping[str, Array],
    targets: Mapping[str, Array],
    category_ids: Sequence[int],
    masks: bool = True,
    mask_threshold: float = 0.5,
) -> list[Result]:
    """Turn a batch of a detector's outputs into COCO results in original pixels.

    Args:
        outputs: the model's dict: `boxes` (B, M, 4) in pixels of its input, `scores`
            (B, M), `labels` (B, M) with -1 as padding and, for masks, `masks`
            (B, M, h, w) in [0, 1].
        targets: the dataset's dict: `image_ids` (B,), `scales` (B, 2) and
            `original_sizes` (B, 2).
        category_ids: category id of each label, `Annotations.category_ids` finds it.
        masks: whether to add each instance's RLE, pasted exact to half a pixel.
        mask_threshold: a pixel belongs to an instance from this value on.

    Returns:
        One dict per detection. Detections wholly in the padding are left out: they
        are not in the photo.
    """
    if masks and "masks" not in outputs:
        raise ValueError(
            "masks=True needs a model with masks. This one puts out "
            f"{sorted(outputs)}; pass masks=False to score its boxes"
        )
    results: list[Result] = []
    for row, image_id in enumerate(np.asarray(targets["image_ids"])):
        real = np.asarray(outputs["labels"][row]) >= 0
        results += _image_results(
            {key: np.asarray(value[row])[real] for key, value in _per_box(outputs)},
            int(image_id),
            np.asarray(targets["scales"][row]),
            np.asarray(targets["original_sizes"][row]),
            category_ids,
            mask_threshold if masks else None,
        )
    return results


def detection_results(
    image_id: int,
    category_ids: Sequence[int],
    boxes: Array,
    scores: Array,
    labels: Array,
    segmentations: Sequence[dict[str, Any]] | None = None,
) -> list[Result]:
    """Write the detections of one image as COCO results.

    Args:
        image_id: id of the image in the annotations.
        category_ids: category id of each label.
        boxes: (N, 4) array, xyxy in original pixels.
        scores: (N,) array.
        labels: (N,) integer array.
        segmentations: N compressed RLEs, or None.

    Returns:
        N dicts of plain Python numbers.
    """
    if len(labels) and max(labels) >= len(category_ids):
        raise ValueError(
            f"Label {max(labels)} has no category: category_ids has "
            f"{len(category_ids)} entries, one is needed for each class of the model"
        )
    corners = np.asarray(boxes, np.float64)
    boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    results: list[Result] = [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": box,
            "score": score,
        }
        for box, score, label in zip(
            boxes_xywh.tolist(),
            np.asarray(scores, np.float64).tolist(),
            np.asarray(labels).tolist(),
            strict=True,
        )
    ]
    if segmentations is not None:
        for result, segmentation in zip(results, segmentations, strict=True):
            result["segmentation"] = segmentation
    return results


def ground_truth_results(
    annotations: "str | PathLike[str] | dict[str, Any] | Annotations",
    masks: bool = True,
    mask_size: int | None = None,
) -> list[Result]:
    """Give the ground truth back as detections with score 1.

    Scored against the same annotations they reach AP 1.0, with `max_detections` no
    smaller than the largest count of an image. With `mask_size` every mask goes
    through a grid over its box and is pasted back, so the AP that is missing then is
    what such grids cost.

    Args:
        annotations: path of a COCO instances json, its content, or
            `read_annotations` of it.
        masks: whether to add each instance's RLE.
        mask_size: cells m along each side of the grid; None keeps masks as they are.

    Returns:
        One COCO result per annotation that is not a crowd.
    """
    truth = read_annotations(annotations)
    results = []
    for annotation in truth.masks if masks else truth.boxes:
        if annotation["iscrowd"]:
            continue
        result = {key: annotation[key] for key in ("image_id", "category_id", "bbox")}
        result["score"] = 1.0
        if masks:
            result["segmentation"] = annotation["segmentation"]
            if mask_size is not None:
                result["segmentation"] = _through_grid(annotation, mask_size)
        results.append(result)
    return results


def _per_box(outputs: Mapping[str, Array]) -> list[tuple[str, Array]]:
    """Return the outputs that have one row per detection."""
    keys = ("boxes", "scores", "labels", "masks")
    return [(key, outputs[key]) for key in keys if key in outputs]


def _image_results(
    detections: Mapping[str, Array],
    image_id: int,
    scale: Array,
    size: Array,
    category_ids: Sequence[int],
    mask_threshold: float | None,
) -> list[Result]:
    """Write one image's detections, given without padding, as COCO results."""
    boxes, mask_boxes, kept = original_boxes(detections["boxes"], scale, size)
    segmentations = None
    if mask_threshold is not None:
        photo = (int(size[0]), int(size[1]))
        grids = detections["masks"][kept]
        segmentations = rles(grids, mask_boxes, photo, mask_threshold)
    scores, labels = detections["scores"][kept], detections["labels"][kept]
    return detection_results(
        image_id, category_ids, boxes, scores, labels, segmentations
    )


def _through_grid(annotation: dict[str, Any], mask_size: int) -> dict[str, Any]:
    """Send one mask through a grid over its box and back."""
    x, y, w, h = annotation["bbox"]
    box = np.array([x, y, x + w, y + h])
    grid = crop(decode(annotation["segmentation"]), box, mask_size)
    height, width = annotation["segmentation"]["size"]
    return rles(grid[None], box[None], (height, width))[0]
