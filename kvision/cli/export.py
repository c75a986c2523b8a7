"""`kvision export`: SavedModel, TFLite and ONNX, each compared with the model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import kvision.export
from kvision.cli.arguments import find_data_sets, labelled_images, load_model
from kvision.data import coco, find_splits
from kvision.export.classifier import is_classifier

__all__ = ["run"]


def run(
    model: Path,
    formats: Sequence[str],
    quantize: Literal["float32", "float16", "dynamic", "int8"],
    precision: str | None,
    data: Path | None,
    images: Path | None,
    name: str | None,
    output: Path,
) -> dict[str, Any]:
    """Write NAME/VERSION/ for TF Serving, NAME/NAME.tflite and NAME/NAME.onnx.

    Args:
        model: a `.keras` file or a run folder.
        formats: some of "saved_model", "tflite" and "onnx".
        quantize: numbers of the TFLite file.
        precision: of the SavedModel, "float32" or "bfloat16" for the fastest on x86
            processors; None for one that runs anywhere.
        data: data set to compare on, COCO's for a detector, labelled images for a
            classifier; its training images calibrate int8.
        images: image folder of a json file or table.
        name: of the exported model; by default that of the file or run folder.
        output: folder of all exported models.

    Returns:
        The files, and the comparison of each with the model.
    """
    loaded = load_model(model)
    folder = output / (name or model.stem)
    folder.mkdir(parents=True, exist_ok=True)
    calibration, comparison = _datasets(loaded, data, images)
    parity = {}
    if "saved_model" in formats:
        parity["saved_model"] = kvision.export.saved_model(
            loaded,
            folder / _next_version(folder),
            precision=precision,
            images=comparison,
        )
    if "tflite" in formats:
        suffix = "" if quantize == "float32" else f"-{quantize}"
        parity["tflite"] = kvision.export.tflite(
            loaded,
            folder / f"{folder.name}{suffix}.tflite",
            quantize=quantize,
            calibration=calibration,
            images=comparison,
            data=comparison,
        )
    if "onnx" in formats:
        parity["onnx"] = kvision.export.onnx(
            loaded, folder / f"{folder.name}.onnx", images=comparison
        )
    for report in parity.values():
        print(f"{report.num_bytes / 1e6:.1f} MB: {report.path}")
    return {
        "files": {kind: report.path for kind, report in parity.items()},
        "parity": {kind: report.to_dict() for kind, report in parity.items()},
    }


def _datasets(model: Any, data: Path | None, images: Path | None) -> tuple[Any, Any]:
    """Return what calibrates and what is compared on: training and validation set."""
    if data is None:
        return None, None
    if is_classifier(model):
        return _labelled(model, data, images)
    sets = {name: files for name, *files in find_data_sets(data, images)}
    first = next(iter(sets.values()))
    chosen = sets.get("train", first), sets.get("val", first)
    return tuple(
        coco(
            *files,
            image_size=model.image_size,
            batch_size=8,
            resize=model.resize,
            class_names=model.class_names,
            masks=model.get_config()["masks"],
        )
        for files in chosen
    )


def _labelled(model: Any, data: Path, images: Path | None) -> tuple[Any, Any]:
    """Return the training set, and what `kvision eval` scores; or one set for both."""
    compared = labelled_images(model, data, images)
    has_training = data.suffix.lower() == ".npz" or "train" in find_splits(data)
    if not has_training:
        return compared, compared
    return labelled_images(model, data, images, "train"), compared


def _next_version(folder: Path) -> str:
    """Return the number after the highest that is there."""
    taken = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    return str(max(taken, default=0) + 1)
