"""`kvision eval`: the figures of COCO, a table of classes, curves and confusions."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kvision.cli.arguments import choose_data_set, load_detector
from kvision.data import coco
from kvision.evaluation import confusion_matrix, figure_names, pr_curves
from kvision.models import Detector
from kvision.train.callbacks import COCOMetrics
from kvision.viz import plot_confusion_matrix, plot_precision_recall

__all__ = ["run", "with_max_detections"]

Scores = dict[str, Any]


def run(
    model: Path,
    data: Path,
    images: Path | None,
    set_name: str | None,
    batch_size: int,
    max_detections: int,
    score_threshold: float,
    output: Path | None,
) -> dict[str, Any]:
    """Score a model on a COCO data set in the pixels of its photos.

    Args:
        model: a `.keras` file or a run folder.
        data: folder with COCO json files and images, or one json file.
        images: image folder of a json file.
        set_name: which set of a folder; None is "val", or the only one.
        batch_size: images that go through the model at once.
        max_detections: the detections per image and class that count.
        score_threshold: the least score that counts in the confusion matrix.
        output: folder for scores, results, curves and confusion matrix; None for none.

    Returns:
        The scores, with `per_class` and `files`.
    """
    if output is not None and importlib.util.find_spec("matplotlib") is None:
        raise ImportError("--output draws with matplotlib: pip install 'kvision[viz]'")
    name, annotations, folder = choose_data_set(data, images, set_name)
    detector: Any = with_max_detections(load_detector(model), max_detections)
    dataset = coco(
        annotations,
        folder,
        image_size=detector.image_size,
        batch_size=batch_size,
        resize=detector.resize,
        class_names=detector.class_names,
        masks=False,
    )
    metrics = COCOMetrics(dataset, annotations, max_detections=max_detections)
    console = Console()
    print(f"{name}: {annotations}, {dataset.num_images} images")
    scores = metrics.score(detector)
    masks = "mask_ap" in scores
    console.print(figures_table(scores, masks, max_detections))
    console.print(classes_table(scores, masks))
    files: list[Path] = []
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        files = _write(output, scores, metrics.results)
        scored = {
            "annotations": annotations,
            "results": metrics.results,
            "class_names": detector.class_names,
            "image_ids": dataset.image_ids,
        }
        for kind in ("box", "mask") if masks else ("box",):
            files.append(_draw_curves(output, kind, max_detections, scored))
        files.append(_draw_confusions(output, score_threshold, scored))
        print(f"written to {output}/")
    return {**scores, "files": files}


def with_max_detections(model: Detector, count: int) -> Detector:
    """Return a detector that gives at least `count` detections an image.

    Args:
        model: a detector.
        count: rows of its outputs.

    Returns:
        `model` itself if it has as many, or a copy with the same weights.
    """
    if model.max_detections >= count:
        return model
    more = type(model).from_config({**model.get_config(), "max_detections": count})
    more.set_weights(model.get_weights())
    return more


def figures_table(scores: Scores, masks: bool, max_detections: int) -> Table:
    """Lay out the 12 figures of COCO, boxes and masks side by side."""
    kinds = ("box", "mask") if masks else ("box",)
    table = Table("figure", *kinds, title="COCO")
    for name in figure_names(False, max_detections):
        figure = name.removeprefix("box_")
        table.add_row(figure, *(_figure(scores[f"{kind}_{figure}"]) for kind in kinds))
    return table


def classes_table(scores: Scores, masks: bool) -> Table:
    """Lay out AP and AP50 of each class."""
    names = ["box_ap", "box_ap50", *(("mask_ap", "mask_ap50") if masks else ())]
    table = Table("class", *names, title="classes")
    for class_name, figures in scores["per_class"].items():
        table.add_row(class_name, *(_figure(figures[name]) for name in names))
    return table


def _figure(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"


def _write(output: Path, scores: Scores, results: list[dict[str, Any]]) -> list[Path]:
    files = [output / "scores.json", output / "results.json"]
    files[0].write_text(json.dumps(scores, indent=2))
    files[1].write_text(json.dumps(results))
    return files


def _draw_curves(
    output: Path, kind: str, max_detections: int, scored: dict[str, Any]
) -> Path:
    curves = pr_curves(
        **scored,
        masks=kind == "mask",
        iou_thresholds=[0.5],
        max_detections=max_detections,
    )
    path = output / f"precision_recall_{kind}.png"
    precision = {name: values[0] for name, values in curves.precision.items()}
    title = f"precision and recall of each {kind}, IoU 0.5"
    return plot_precision_recall(curves.recall, precision, path, title)


def _draw_confusions(
    output: Path, score_threshold: float, scored: dict[str, Any]
) -> Path:
    matrix = confusion_matrix(**scored, score_threshold=score_threshold)
    path = output / "confusion_matrix.png"
    return plot_confusion_matrix(matrix.counts, matrix.class_names, path)
