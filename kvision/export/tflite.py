"""TFLite files of detectors: builtin ops only, suppression and masks inside."""

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kvision.export import interpreter
from kvision.export.activation_quantization import int8_activations
from kvision.export.conversion import convert, quiet
from kvision.export.description import describe
from kvision.export.files import write_file
from kvision.export.flatbuffer import check_builtin, with_description
from kvision.export.matching import Tolerance, compare
from kvision.export.parity import Parity, check, in_batches, runner
from kvision.export.precision import average_precision
from kvision.export.samples import calibration_images, comparison_images, fitted
from kvision.export.twin import in_float32
from kvision.export.weight_quantization import float16_weights, int8_weights

__all__ = ["tflite"]

Array = np.ndarray
Quantize = Literal["float32", "float16", "dynamic", "int8"]

_KINDS = ("float32", "float16", "dynamic", "int8")
# Points of AP that may be lost, as shares of 1.
_MAX_AP_LOST = {"float16": 0.002, "dynamic": 0.01, "int8": 0.01}


def tflite(
    model: Any,
    path: str | PathLike[str],
    *,
    quantize: Quantize | None = None,
    calibration: Any = None,
    images: Any = None,
    data: Any = None,
    num_images: int = 200,
) -> Parity:
    """Write a detector as a TFLite file and compare it with the model.

    The file takes one image (1, H, W, C) uint8 of the model's input size and gives the
    model's dict of outputs. All its ops are builtin, so the standard runtime
    (LiteRT, `ai-edge-litert`) runs it. Class names and the way photos are resized are
    stored in it; `kvision_edge.py` reads them.

    Args:
        model: a detector of `kvision.models`. Under a half-precision policy its
            float32 twin is exported.
        path: the file to write, `.tflite`. An existing one is replaced once the new one
            has passed the comparison.
        quantize: None or "float32"; "float16" (weights in half the size); "dynamic"
            (weights in 8 bits, about a quarter); "int8" (also the activations of
            backbone, pyramid and heads; logits, boxes, suppression and mask logits stay
            float32).
        calibration: for "int8": images like those the model will see, as a data set of
            (images, targets) or whatever `images` may be; the first 100 count.
        images: photos of any size to compare on: paths, arrays, a data set. By default
            the calibration images, or generated ones.
        data: batches of (images, targets) with objects, as `kvision.data.coco` makes
            them, on which the loss of AP is measured. By default `calibration`, if it
            has targets.
        num_images: how many images of `data` are scored.

    Returns:
        What was compared, after it was printed.

    Raises:
        ParityError: float32 detections differ by more than 0.5 px, 1e-3 in score or
            1e-2 in masks, or AP falls by more than 0.2 points (float16) or 1 point
            (dynamic, int8). Nothing is written.
        ValueError: an argument is not as above, or an op has no TFLite form.
    """
    path, kind = Path(path), quantize or "float32"
    if kind not in _KINDS:
        raise ValueError(f"quantize must be one of {_KINDS}. Received: {quantize!r}")
    if path.suffix != ".tflite":
        raise ValueError(f"path must end in .tflite. Received: {path}")
    description = {**describe(model), "quantize": kind}
    model = in_float32(model)
    calibrating = calibration_images(model, calibration) if kind == "int8" else None
    content = _quantized(convert(model), kind, calibrating)
    check_builtin(content)
    content = with_description(content, description)
    if calibrating is not None and images is None:
        images = calibrating
    if data is None and kind != "float32" and _has_targets(calibration):
        data = calibration
    parity = _compare(model, path, content, kind, images, data, num_images)
    write_file(path, content)
    return parity


def _quantized(content: bytes, kind: str, calibrating: Array | None) -> bytes:
    if kind == "float16":
        return float16_weights(content)
    if kind == "dynamic":
        return int8_weights(content)
    if calibrating is None:
        return content
    with quiet():
        return int8_activations(content, calibrating, interpreter.all_outputs)


def _compare(
    model: Any,
    path: Path,
    content: bytes,
    kind: str,
    images: Any,
    data: Any,
    num_images: int,
) -> Parity:
    run, reference = interpreter.runner(content), runner(model)
    photos = fitted(model, comparison_images(model, images))
    difference = compare(
        kind,
        in_batches(reference, photos),
        in_batches(run, photos),
        model.get_config()["score_threshold"],
        Tolerance() if kind == "float32" else None,
    )
    if data is not None:
        before, after = (
            average_precision(model, each, data, num_images)
            for each in (reference, run)
        )
        difference = replace(
            difference,
            ap={name: (before[name], after[name]) for name in before},
            max_ap_lost=_MAX_AP_LOST.get(kind),
        )
    return check(Parity(path, len(content), (difference,)))


def _has_targets(calibration: Any) -> bool:
    spec = getattr(calibration, "element_spec", None)
    return (
        isinstance(spec, tuple)
        and len(spec) == 2
        and isinstance(spec[1], dict)
        and "gt_boxes" in spec[1]
    )
