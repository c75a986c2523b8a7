"""`kvision eval`: figures of a model, a table of its classes, curves and confusions.

The figures of COCO for a detector; accuracy, AUC and calibration for a classifier.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kvision.cli.arguments import DataSet, choose_data_set, labelled_images, load_model
from kvision.data import coco
from kvision.evaluation import (
    classification_scores,
    confusion_matrix,
    figure_names,
    pr_curves,
    roc_curves,
)
from kvision.export.classifier import Classifier, is_classifier
from kvision.models import Detector
from kvision.train.callbacks import COCOMetrics
from kvision.viz import (
    plot_calibration,
    plot_confusion_matrix,
    plot_precision_recall,
    plot_roc,
)

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
    """Score a model: a detector on a COCO data set, a classifier on labelled images.

    Args:
        model: a `.keras` file or a run folder.
        data: for a detector, a folder with COCO json files and images, or one json
            file; for a classifier, a folder of classes, a table or an .npz file.
        images: image folder of a json file or table.
        set_name: which set; None is "val" or the only one, and of an .npz file "test".
        batch_size: images that go through the model at once.
        max_detections: the detections per image and class that count.
        score_threshold: the least score that counts in a detector's confusion matrix.
        output: folder for scores, results, curves and confusion matrix; None for none.

    Returns:
        The scores, with `per_class` and `files`.
    """
    if output is not None and importlib.util.find_spec("matplotlib") is None:
        raise ImportError("--output draws with matplotlib: pip install 'kvision[viz]'")
    loaded = load_model(model)
    if is_classifier(loaded):
        dataset = labelled_images(loaded, data, images, set_name, batch_size)
        return _classification(loaded, dataset, output)
    return _detection(
        loaded,
        choose_data_set(data, images, set_name),
        batch_size,
        max_detections,
        score_threshold,
        output,
    )


def _classification(model: Any, dataset: Any, output: Path | None) -> dict[str, Any]:
    classifier = Classifier(model)
    names = classifier.class_names
    parts = [
        (classifier.logits(np.asarray(batch)), np.asarray(labels))
        for batch, labels in dataset
    ]
    logits, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    scores = classification_scores(logits, labels, names)
    console = Console()
    print(f"{scores['num_images']} images")
    console.print(classifier_figures_table(scores))
    console.print(classifier_classes_table(scores))
    if scores["absent_classes"]:
        absent = ", ".join(scores["absent_classes"])
        print(f"no images, so left out of the means and without AUC: {absent}")
    if scores["auc"] is None:
        print("AUC is undefined: it needs images of two classes at least")
    files: list[Path] = []
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        files.append(output / "scores.json")
        files[0].write_text(json.dumps(scores, indent=2))
        path = output / "confusion_matrix.png"
        files.append(plot_confusion_matrix(scores["confusion"], names, path))
        path = output / "calibration.png"
        files.append(plot_calibration(scores["calibration"], path))
        areas = {name: each["auc"] for name, each in scores["per_class"].items()}
        curves = roc_curves(logits, labels, names)
        files.append(plot_roc(curves, areas, output / "roc.png"))
        print(f"written to {output}/")
    return {**scores, "files": files}


def classifier_figures_table(scores: Scores) -> Table:
    """Lay out the figures of a classifier with their intervals."""
    table = Table("figure", "value", "95 % interval", title="classification")
    for name in (
        *("accuracy", "top5_accuracy", "auc", "balanced_accuracy", "f1"),
        *("loss", "calibration_error"),
    ):
        if name in scores:
            interval = scores["intervals"].get(name)
            text = "" if interval is None else "{:.3f} to {:.3f}".format(*interval)
            table.add_row(name, _or_dash(scores[name]), text)
    return table


def classifier_classes_table(scores: Scores) -> Table:
    """Lay out the figures of each class of a classifier."""
    names = ("precision", "recall", "f1", "auc")
    table = Table("class", "images", *names, title="classes")
    for class_name, figures in scores["per_class"].items():
        values = (_or_dash(figures[name]) for name in names)
        table.add_row(class_name, str(figures["support"]), *values)
    return table


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _detection(
    model: Any,
    data_set: DataSet,
    batch_size: int,
    max_detections: int,
    score_threshold: float,
    output: Path | None,
) -> dict[str, Any]:
    name, annotations, folder = data_set
    detector: Any = with_max_detections(model, max_detections)
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
