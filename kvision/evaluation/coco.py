"""COCO average precision of boxes and masks: annotations and results in, dict out.

pycocotools is the reference. faster-coco-eval (extra `fast`) does the same work where
it is installed; the tests hold the two together to six digits.
"""

import contextlib
import gc
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from kvision.evaluation.annotations import Annotations, read_annotations
from kvision.evaluation.rle import check_rle, check_rles

__all__ = ["PrecisionRecall", "coco_scores", "engine", "evaluate", "figure_names"]

Array = np.ndarray
Result = dict[str, Any]
GroundTruth = str | PathLike[str] | dict[str, Any] | Annotations

# pycocotools' area ranges, in the order of its parameters (square pixels of the
# object: small < 32^2 <= medium < 96^2 <= large).
_AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class PrecisionRecall:
    """The accumulated arrays of one COCO evaluation; -1 where there is no object.

    Shape letters: T IoU thresholds, R recall points, K classes, A area ranges (all,
    small, medium, large), M numbers of detections per image.

    Attributes:
        precision: (T, R, K, A, M) array.
        recall: (T, K, A, M) array.
        scores: (T, R, K, A, M) array, the score at which that recall is reached.
        iou_thresholds: (T,) array, 0.50 to 0.95.
        recall_points: (R,) array, 0 to 1.
        max_detections: M ascending numbers.
        class_names: K names.
    """

    precision: Array
    recall: Array
    scores: Array
    iou_thresholds: Array
    recall_points: Array
    max_detections: list[int]
    class_names: list[str]


def coco_scores(
    annotations: GroundTruth,
    results: Sequence[Result],
    *,
    max_detections: int = 100,
    masks: bool | None = None,
    class_names: Iterable[str] | None = None,
    image_ids: Iterable[int] | None = None,
) -> dict[str, Any]:
    """Score results against COCO annotations.

    Args:
        annotations: path of a COCO instances json, its content, or
            `read_annotations` of it. Crowds are ignore regions.
        results: COCO results in original pixels, as `coco_results` makes them.
        max_detections: the detections per image and class that count, best first.
        masks: whether to score masks too. By default, when all results and all
            annotations have them.
        class_names: the classes to score; all categories by default.
        image_ids: the images to score; all by default. Images without a result count:
            what is on them was missed.

    Returns:
        For each of `box_` and `mask_`: `ap` (mean over IoU 0.50:0.95), `ap50`, `ap75`,
        `ap_small`, `ap_medium`, `ap_large`, and average recall `ar1`, `ar10`, `ar100`
        (the last with `max_detections` for its number) and `ar_small`, `ar_medium`,
        `ar_large`. AP is always taken at `max_detections` (pycocotools prints AP at
        100 only). `per_class` maps each name to the same figures of its class. A
        figure is -1 where the annotations have no such object, as in pycocotools.

        The size of a detected mask is its own area, as in detectron2 (pycocotools
        takes the area of the box where a result has both).

    Raises:
        ValueError: a result or an annotation cannot be scored; the message names it.

    Source: Lin et al. 2014, Microsoft COCO; pycocotools `cocoeval.py`.
    """
    truth = read_annotations(annotations)
    names = list(truth.categories.values() if class_names is None else class_names)
    if masks is None:
        masks = truth.has_masks and all("segmentation" in item for item in results)
    ids = _ids(image_ids, truth)
    figures: dict[str, Any] = {}
    per_class: dict[str, dict[str, float]] = {name: {} for name in names}
    with _collector_paused():
        detections = _checked_results(results, truth, masks)
        found = {
            kind: _run(detections, truth, kind == "mask", max_detections, names, ids)
            for kind in ("box", "mask")[: 1 + masks]
        }
    for kind, curves in found.items():
        figures |= _figures(curves, kind, slice(None))
        for index, name in enumerate(names):
            per_class[name] |= _figures(curves, kind, slice(index, index + 1))
    return {**figures, "per_class": per_class}


def evaluate(
    annotations: GroundTruth,
    results: Sequence[Result],
    *,
    masks: bool,
    max_detections: int = 100,
    class_names: Iterable[str] | None = None,
    image_ids: Iterable[int] | None = None,
) -> PrecisionRecall:
    """Match results with annotations and accumulate precision and recall.

    Args:
        annotations: as in `coco_scores`.
        results: as in `coco_scores`.
        masks: whether the overlap is that of masks rather than that of boxes.
        max_detections: the detections per image and class that count, best first.
        class_names: the classes to score; all categories by default.
        image_ids: the images to score; all by default.

    Returns:
        Precision and recall of every threshold, class and area range.
    """
    truth = read_annotations(annotations)
    names = list(truth.categories.values() if class_names is None else class_names)
    ids = _ids(image_ids, truth)
    with _collector_paused():
        detections = _checked_results(results, truth, masks)
        return _run(detections, truth, masks, max_detections, names, ids)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python from looking for cycles among many dicts: a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def engine() -> str:
    """Return which package computes the scores: faster-coco-eval or pycocotools."""
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError:
        return "pycocotools"
    return "faster-coco-eval"


def figure_names(masks: bool, max_detections: int = 100) -> list[str]:
    """Name the figures of `coco_scores` in the order in which COCO prints them.

    Args:
        masks: whether masks are scored too.
        max_detections: as in `coco_scores`.

    Returns:
        The keys, boxes first.
    """
    sized = [f"{what}_{area}" for what in ("ap", "ar") for area in _AREAS[1:]]
    names = [
        "ap",
        "ap50",
        "ap75",
        *sized[:3],
        *(f"ar{n}" for n in _counts(max_detections)),
        *sized[3:],
    ]
    return [f"{kind}_{n}" for kind in ("box", "mask")[: 1 + masks] for n in names]


def _counts(max_detections: int) -> list[int]:
    """Return the numbers of detections an image for which there is a recall."""
    return sorted({n for n in (1, 10) if n < max_detections} | {max_detections})


def _ids(image_ids: Iterable[int] | None, truth: Annotations) -> list[int]:
    """Return ascending image ids as ints, all of which the annotations have."""
    if image_ids is None:
        return sorted(truth.image_sizes)
    ids = [int(image_id) for image_id in image_ids]
    unknown = [image_id for image_id in ids if image_id not in truth.image_sizes]
    if unknown:
        raise ValueError(
            f"{truth.source} has no images with the ids {unknown[:5]} "
            f"({len(unknown)} of {len(ids)} are unknown)"
        )
    return sorted(ids)


def _checked_results(
    results: Sequence[Result], truth: Annotations, masks: bool
) -> list[Result]:
    """Copy results with ids from 1, boxes and areas; refuse what cannot be scored."""
    detections = []
    for number, result in enumerate(results):
        try:
            detections.append(_checked_result(number, result, truth, masks))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise _unfit(number, result, reason) from None
    # RLEs are looked at together, before pycocotools reads any.
    coded = [d for d in detections if masks or d.get("bbox") is None]
    rles = [detection["segmentation"] for detection in coded]
    sizes = [truth.image_sizes[detection["image_id"]] for detection in coded]
    bad = check_rles(rles, sizes)
    if bad < len(rles):
        try:
            check_rle(rles[bad], sizes[bad])
        except ValueError as error:
            number = coded[bad]["id"] - 1
            raise _unfit(number, results[number], error) from None
    for detection in detections:
        if detection.get("bbox") is None:
            detection["bbox"] = coco_mask.toBbox(detection["segmentation"]).tolist()
        detection["area"] = detection["bbox"][2] * detection["bbox"][3]
    return detections


def _checked_result(
    number: int, result: Result, truth: Annotations, masks: bool
) -> Result:
    """Copy a result; what its mask is like is not looked at."""
    if result["image_id"] not in truth.image_sizes:
        raise ValueError(f"no such image in {truth.source}")
    if result["category_id"] not in truth.categories:
        raise ValueError(f"no such category in {truth.source}")
    if not math.isfinite(result["score"]):
        raise ValueError("the score is not a finite number")
    box = result.get("bbox")
    if result.get("segmentation") is None:
        if masks:
            raise ValueError("no segmentation, which masks=True needs")
        if box is None:
            raise ValueError("neither bbox nor segmentation")
    if box is not None:
        x, y, width, height = box
        if not all(map(math.isfinite, (x, y, width, height))):
            raise ValueError("the bbox is not four finite numbers")
    return {**result, "id": number + 1, "iscrowd": 0}


def _unfit(number: int, result: Result, reason: object) -> ValueError:
    return ValueError(f"Result {number} {_short(result)}: {reason}")


def _short(result: Result) -> dict[str, Any]:
    """Return what of a result fits into a message."""
    if not isinstance(result, dict):
        return {"received": type(result).__name__}
    return {key: result[key] for key in result if key != "segmentation"}


def _run(
    detections: Sequence[Result],
    truth: Annotations,
    masks: bool,
    max_detections: int,
    class_names: list[str],
    image_ids: list[int],
) -> PrecisionRecall:
    """Run one of the two engines and return its arrays in the order of the names."""
    if max_detections < 1:
        raise ValueError(f"max_detections must be 1 or more. Received {max_detections}")
    counts = _counts(max_detections)
    category_ids = truth.category_ids(class_names)
    if not category_ids or not image_ids:
        raise ValueError(
            f"Nothing to score in {truth.source}: {len(category_ids)} classes, "
            f"{len(image_ids)} images"
        )
    truths = truth.masks if masks else truth.boxes
    found = [dict(detection) for detection in detections]
    if masks:
        # Of a list pycocotools (2.0.11) gives areas modulo 256 or an OverflowError.
        for detection in found:
            detection["area"] = float(coco_mask.area(detection["segmentation"]))
    make_coco, make_evaluation = _engine_classes()
    # pycocotools prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = make_evaluation(
            _index(make_coco, [dict(item) for item in truths], truth),
            _index(make_coco, found, truth),
            iouType="segm" if masks else "bbox",
        )
        evaluation.params.imgIds = image_ids
        evaluation.params.catIds = sorted(category_ids)
        evaluation.params.maxDets = counts
        evaluation.evaluate()
        evaluation.accumulate()
    order = np.argsort(np.argsort(category_ids))
    arrays = evaluation.eval
    return PrecisionRecall(
        precision=np.asarray(arrays["precision"])[:, :, order],
        recall=np.asarray(arrays["recall"])[:, order],
        scores=np.asarray(arrays["scores"])[:, :, order],
        iou_thresholds=np.asarray(evaluation.params.iouThrs),
        recall_points=np.asarray(evaluation.params.recThrs),
        max_detections=counts,
        class_names=class_names,
    )


def _engine_classes() -> tuple[Any, Any]:
    """Return the COCO and COCOeval classes of the engine."""
    if engine() == "faster-coco-eval":
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def _index(make_coco: Any, items: list[Result], truth: Annotations) -> Any:
    """Make a COCO object of annotations or results, into which its engine writes."""
    coco = make_coco()
    coco.dataset = {
        "images": [
            {"id": i, "height": size and size[0], "width": size and size[1]}
            for i, size in truth.image_sizes.items()
        ],
        "categories": [{"id": i, "name": n} for i, n in truth.categories.items()],
        "annotations": items,
    }
    coco.createIndex()
    return coco


def _figures(curves: PrecisionRecall, kind: str, classes: slice) -> dict[str, float]:
    """Return the twelve COCO figures over some of the classes."""

    def precision(area: int, iou: slice = slice(None)) -> float:
        return _mean(curves.precision[iou, :, classes, area, -1])

    def recall(area: int, count: int = -1) -> float:
        return _mean(curves.recall[:, classes, area, count])

    figures = {"ap": precision(0)}
    for percent in (50, 75):
        at = int(np.argmin(np.abs(curves.iou_thresholds - percent / 100)))
        figures[f"ap{percent}"] = precision(0, slice(at, at + 1))
    figures |= {f"ap_{_AREAS[area]}": precision(area) for area in (1, 2, 3)}
    for index, number in enumerate(curves.max_detections):
        figures[f"ar{number}"] = recall(0, index)
    figures |= {f"ar_{_AREAS[area]}": recall(area) for area in (1, 2, 3)}
    return {f"{kind}_{name}": figure for name, figure in figures.items()}


def _mean(values: Array) -> float:
    """Return the mean over what exists, -1 where nothing does."""
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0
