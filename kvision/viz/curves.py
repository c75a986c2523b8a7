"""Curves of training and of scores as PNG files (matplotlib, extra `viz`)."""

import csv
import io
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from kvision.viz.panels import write_bytes

__all__ = [
    "plot_calibration",
    "plot_confusion_matrix",
    "plot_history",
    "plot_precision_recall",
    "plot_roc",
]

Array = np.ndarray
PathName = str | PathLike[str]

_MAX_NAMED = 12  # more curves than this get no name of their own


def plot_history(
    results: "PathName | Mapping[str, Sequence[float]]", path: PathName
) -> Path:
    """Draw losses and AP over the epochs.

    Args:
        results: path of a `results.csv` (a column `epoch`, then one per metric, those
            of the validation with `val_` before their names), or `History.history`.
        path: the PNG to write.

    Returns:
        The path of the PNG.
    """
    columns = results if isinstance(results, Mapping) else _read_columns(Path(results))
    series = {k: np.asarray(v, float) for k, v in columns.items() if k != "epoch"}
    epochs = np.asarray(columns.get("epoch", np.arange(_length(series))), float) + 1
    panels = {title: names for title, names in _panels(series).items() if names}
    if not panels:
        raise ValueError(f"No losses and no AP to draw among {sorted(series)}")
    figure, axes = _figure(len(panels))
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        _draw_series(axis, epochs, {name: series[name] for name in names})
        axis.set(title=title, xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        axis.xaxis.get_major_locator().set_params(integer=True)
        if title.startswith("AP"):
            axis.set_ylim(0, 1)
        else:
            axis.set_ylim(bottom=0)
    return _save(figure, path)


def plot_precision_recall(
    recall: Array,
    precision: Mapping[str, Array],
    path: PathName,
    title: str = "precision and recall",
) -> Path:
    """Draw precision over recall, a curve for each class and the mean of all.

    Args:
        recall: (R,) array in [0, 1].
        precision: name of a class -> (R,) array in [0, 1].
        path: the PNG to write.
        title: what stands above.

    Returns:
        The path of the PNG.
    """
    figure, (axis,) = _figure(1)
    named = len(precision) <= _MAX_NAMED
    for name, values in sorted(precision.items(), key=lambda item: -np.mean(item[1])):
        label = f"{name} {np.mean(values):.3f}" if named else None
        axis.plot(recall, values, label=label, linewidth=1.5 if named else 0.7)
    if len(precision) > 1:
        mean = np.mean(list(precision.values()), axis=0)
        text = f"all {len(precision)} classes {mean.mean():.3f}"
        axis.plot(recall, mean, color="black", linewidth=2.5, label=text)
    axis.set(xlabel="recall", ylabel="precision", title=title)
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    if precision:
        axis.legend(title="AP", fontsize="small", loc="lower left")
    return _save(figure, path)


def plot_confusion_matrix(
    counts: Array, class_names: Sequence[str], path: PathName, normalize: bool = False
) -> Path:
    """Draw a confusion matrix.

    Args:
        counts: (K, K) integers, row = true class, column = found class. Of a detector
            the last of both is the background.
        class_names: K names.
        path: the PNG to write.
        normalize: whether to show shares of each row instead of counts.

    Returns:
        The path of the PNG.
    """
    counts = np.asarray(counts)
    if counts.shape != (len(class_names), len(class_names)):
        raise ValueError(
            f"Expected counts of shape ({len(class_names)}, {len(class_names)}) for "
            f"{len(class_names)} names. Received: {counts.shape}"
        )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.2 + 0.55 * len(class_names), 4.5, 18))
    figure, (axis,) = _figure(1, width=side * 1.1, height=side)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(class_names))
    small = "small" if len(class_names) <= 30 else "xx-small"
    axis.set_xticks(ticks, class_names, rotation=90, fontsize=small)
    axis.set_yticks(ticks, class_names, fontsize=small)
    axis.set(xlabel="found", ylabel="true", title="confusion matrix")
    axis.grid(False)
    for row, column in np.argwhere(counts):
        if len(class_names) > 30:
            break
        text = f"{shares[row, column]:.2f}" if normalize else f"{counts[row, column]}"
        color = "white" if shares[row, column] > 0.55 else "black"
        axis.text(
            column, row, text, ha="center", va="center", color=color, fontsize=small
        )
    bar = figure.colorbar(image, ax=axis, fraction=0.045)
    bar.set_label("share of the row")
    return _save(figure, path)


def plot_calibration(bins: Mapping[str, Any], path: PathName) -> Path:
    """Draw how often a classifier is right over how sure it is (reliability diagram).

    Args:
        bins: as `kvision.evaluation.calibration` gives them.
        path: the PNG to write.

    Returns:
        The path of the PNG.
    """
    edges, counts = np.asarray(bins["edges"]), np.asarray(bins["counts"])
    filled = counts > 0
    confidence, accuracy = (
        np.array([np.nan if v is None else v for v in bins[name]], float)[filled]
        for name in ("confidence", "accuracy")
    )
    figure, (axis, below) = _figure(2, width=5.0)
    axis.plot([0, 1], [0, 1], color="gray", linestyle="--", label="calibrated")
    axis.bar(
        edges[:-1][filled],
        accuracy,
        width=np.diff(edges)[filled],
        align="edge",
        color="C0",
        alpha=0.35,
    )
    axis.plot(confidence, accuracy, marker="o", color="C0", label="model")
    title = f"calibration, expected error {bins['error']:.3f}"
    axis.set(xlabel="score of the best class", ylabel="share that is right")
    axis.set(title=title, xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(fontsize="small", loc="upper left")
    below.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color="C1")
    below.set(xlabel="score of the best class", ylabel="images", xlim=(0, 1))
    below.set_title("how sure the model is")
    return _save(figure, path)


def plot_roc(
    curves: Mapping[str, tuple[Array, Array]],
    areas: Mapping[str, float],
    path: PathName,
) -> Path:
    """Draw the ROC curve of each class against the rest.

    Args:
        curves: name of a class -> (false positive rates, true positive rates).
        areas: name of a class -> area under its curve.
        path: the PNG to write.

    Returns:
        The path of the PNG.
    """
    figure, (axis,) = _figure(1, width=5.5, height=5.0)
    named = len(curves) <= _MAX_NAMED
    for name, (misses, hits) in sorted(curves.items(), key=lambda e: -areas[e[0]]):
        label = f"{name} {areas[name]:.3f}" if named else None
        axis.plot(misses, hits, label=label, linewidth=1.5 if named else 0.7)
    mean = np.mean([areas[name] for name in curves]) if curves else float("nan")
    axis.plot([0, 1], [0, 1], color="gray", linestyle="--")
    axis.set(xlabel="false positive rate", ylabel="true positive rate")
    axis.set(title=f"ROC of each class, mean area {mean:.3f}")
    axis.set(xlim=(-0.01, 1), ylim=(0, 1.01))
    if named and curves:
        axis.legend(title="AUC", fontsize="small", loc="lower right")
    return _save(figure, path)


def _read_columns(path: Path) -> dict[str, list[float]]:
    """Read a csv with a header; what is not a number becomes NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path} has no rows yet")
    return {
        name: [_number(row[name]) for row in rows]
        for name in rows[0]
        if name is not None
    }


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else float("nan")
    except ValueError:
        return float("nan")


def _length(series: Mapping[str, Array]) -> int:
    return max((len(values) for values in series.values()), default=0)


def _panels(series: Mapping[str, Array]) -> dict[str, list[str]]:
    """Sort metrics into panels: the whole loss, its parts, AP, the learning rate."""
    parts = [
        name
        for name in series
        if name.endswith("_loss") and name not in ("loss", "val_loss")
    ]
    figures = ("box_ap", "box_ap50", "mask_ap", "mask_ap50")
    scores = [f"{prefix}{name}" for name in figures for prefix in ("", "val_")]
    return {
        "loss": [name for name in ("loss", "val_loss") if name in series],
        "loss parts": parts,
        "AP": [name for name in scores if name in series],
        "learning rate": [n for n in ("learning_rate", "lr") if n in series],
    }


def _draw_series(axis: Any, epochs: Array, series: Mapping[str, Array]) -> None:
    """Draw metrics; one of the validation is dashed in the colour of its twin."""
    colors: dict[str, str] = {}
    for name, values in series.items():
        stem = name.removeprefix("val_")
        color = colors.setdefault(stem, f"C{len(colors)}")
        twin = name != stem and stem in series
        known = np.isfinite(values)
        axis.plot(
            epochs[: len(values)][known],
            values[known],
            color=color,
            linestyle="--" if twin else "-",
            marker="o" if known.sum() < 30 else None,
            markersize=3,
            label=name,
        )
    axis.legend(fontsize="small", ncols=1 + (len(series) > 5))


def _figure(panels: int, width: float = 6.0, height: float = 4.5) -> Any:
    """Make a figure of axes, two in a row, without touching pyplot's global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Curves need matplotlib: pip install 'kvision[viz]'"
        ) from error
    columns, rows = min(panels, 2), (panels + 1) // 2
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(panels)]
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: PathName) -> Path:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return write_bytes(Path(path), data.getvalue())
