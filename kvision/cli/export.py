"""`kvision export`: SavedModel and TFLite, each compared with the model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import kvision.export
from kvision.cli.arguments import find_data_sets, load_detector
from kvision.data import coco

__all__ = ["run"]


def run(
    model: Path,
    formats: Sequence[str],
    quantize: Literal["float32", "float16", "dynamic", "int8"],
    data: Path | None,
    images: Path | None,
    name: str | None,
    output: Path,
) -> dict[str, Any]:
    """Write NAME/VERSION/ for TF Serving and NAME/NAME.tflite.

    Args:
        model: a `.keras` file or a run folder.
        formats: some of "saved_model" and "tflite".
        quantize: numbers of the TFLite file.
        data: COCO data set to compare on; its training images calibrate int8.
        images: image folder of a json file.
        name: of the exported model; by default that of the file or run folder.
        output: folder of all exported models.

    Returns:
        The files, and the comparison of each with the model.
    """
    detector = load_detector(model)
    folder = output / (name or model.stem)
    folder.mkdir(parents=True, exist_ok=True)
    calibration, comparison = _datasets(detector, data, images)
    parity = {}
    if "saved_model" in formats:
        parity["saved_model"] = kvision.export.saved_model(
            detector, folder / _next_version(folder), images=comparison
        )
    if "tflite" in formats:
        suffix = "" if quantize == "float32" else f"-{quantize}"
        parity["tflite"] = kvision.export.tflite(
            detector,
            folder / f"{folder.name}{suffix}.tflite",
            quantize=quantize,
            calibration=calibration,
            images=comparison,
            data=comparison,
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


def _next_version(folder: Path) -> str:
    """Return the number after the highest that is there."""
    taken = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    return str(max(taken, default=0) + 1)
