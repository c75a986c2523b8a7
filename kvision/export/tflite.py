"""TFLite files of builtin ops only; of a detector with suppression and masks inside."""

from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kvision.export import interpreter
from kvision.export.activation_quantization import int8_activations
from kvision.export.conversion import convert, quiet
from kvision.export.files import write_file
from kvision.export.flatbuffer import check_builtin, check_rank, with_description
from kvision.export.limits import check_size
from kvision.export.parity import Parity, check, runner
from kvision.export.samples import calibration_images
from kvision.export.tasks import Task, task_of
from kvision.export.weight_quantization import float16_weights, int8_weights

__all__ = ["tflite"]

Array = np.ndarray
Quantize = Literal["float32", "float16", "dynamic", "int8"]

_KINDS = ("float32", "float16", "dynamic", "int8")


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
    """Write a model as a TFLite file and compare it with the model.

    The file takes one image (1, H, W, C) uint8 of the model's input size and gives the
    model's dict of outputs. All its ops are builtin, so the standard runtime
    (LiteRT, `ai-edge-litert`) runs it. A classifier that takes boxes of interest has a
    second input, `regions` (1, num_regions, 4) float32 in pixels of the input, zeros as
    padding. Class names and the way photos are resized are
    stored in it; `kvision_edge.py` reads them.

    Args:
        model: a detector or a classifier of `kvision.models`. Under a half-precision
            policy its float32 twin is exported.
        path: the file to write, `.tflite`. An existing one is replaced once the new one
            has passed the comparison.
        quantize: None or "float32"; "float16" (weights in half the size); "dynamic"
            (weights in 8 bits, about a quarter); "int8" (also activations: of a
            detector those of backbone, pyramid and heads, while logits, boxes,
            suppression, mask logits and backbones of depthwise convolutions stay
            float32; of a classifier those that go in and out of products with weights,
            while normalisation, softmax, GELU and logits stay float32).
        calibration: for "int8": images like those the model will see, as a data set of
            (images, targets) or whatever `images` may be; the first 100 count.
        images: photos of any size to compare on: paths, arrays, a data set. By default
            the calibration images, or generated ones.
        data: batches of (images, targets), as `kvision.data` makes them, on which the
            loss of AP or of accuracy is measured. By default `calibration`, if it has
            targets.
        num_images: how many images of `data` are scored.

    Returns:
        What was compared, after it was printed.

    Raises:
        ParityError: float32 detections differ by more than 0.5 px, 1e-3 in score or
            1e-2 in masks, float32 logits by more than 1e-4 of the largest; or AP or
            accuracy falls by more than 0.2 points (float16) or 1 point (dynamic, int8);
            or, on images that were given, more than 2 % of them (and more than one) get
            another top class or logits are correlated by less than 0.99. Nothing is
            written.
        ValueError: an argument is not as above, an op has no TFLite form, a tensor of a
            classifier more than 4 dimensions, or the weights are beyond 2 GB.
    """
    path, kind = Path(path), quantize or "float32"
    if kind not in _KINDS:
        raise ValueError(f"quantize must be one of {_KINDS}. Received: {quantize!r}")
    if path.suffix != ".tflite":
        raise ValueError(f"path must end in .tflite. Received: {path}")
    task = task_of(model)
    check_size(task.model, "TFLite")
    calibrating = None
    if kind == "int8":
        calibrating = calibration_images(task.model, calibration)
    content = _quantized(task, convert(task.model), kind, calibrating)
    check_builtin(content)
    if task.max_rank is not None:
        check_rank(content, task.max_rank)
    content = with_description(content, {**task.description, "quantize": kind})
    if calibrating is not None and images is None:
        images = calibrating
    if data is None and kind != "float32" and task.has_targets(calibration):
        data = calibration
    run, reference = interpreter.runner(content), runner(task.model)
    difference: Any = task.measured(kind, run, reference, images, data, num_images)
    parity = check(Parity(path, len(content), (difference,)))
    write_file(path, content)
    return parity


def _quantized(
    task: Task, content: bytes, kind: str, calibrating: Array | None
) -> bytes:
    if kind == "float16":
        return float16_weights(content)
    if kind == "dynamic":
        return int8_weights(content)
    if calibrating is None:
        return content
    with quiet():
        return int8_activations(
            content, task.inputs(calibrating), interpreter.all_outputs, task.plan
        )
