"""kvision's Mask R-CNN ResNet-50 FPN: inference, in LiteRT too, and training."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import kvision as kv
import kvision_edge
from benchmarks.processes import run_again
from benchmarks.random_vectors import randomize_vectors
from benchmarks.turns import take_turns
from kvision.models.rcnn_conventions import TORCHVISION_V1

Work = Callable[[], object]

_NAMES = [str(number) for number in range(90)]


def build(arguments: argparse.Namespace, dtype: str | None = None) -> keras.Model:
    """Build a model whose weights are all random."""
    keras.utils.set_random_seed(0)
    number = arguments.proposals
    chosen = {"roi_align_sampling_ratio": arguments.samples}
    if number:
        chosen["rpn_post_nms_top_k"] = number
    model = kv.models.mask_rcnn(
        "resnet50",
        class_names=_NAMES,
        image_size=tuple(arguments.size),
        freeze_batch_norm=True,
        score_threshold=0.0,
        dtype=dtype,
        **TORCHVISION_V1,
        **chosen,
    )
    randomize_vectors(model, 0.002)
    return model


def image_of(size: list[int]) -> np.ndarray:
    """Return an image (height, width, 3)."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def infer(arguments: argparse.Namespace) -> Work:
    """Return a function that detects objects and pastes their masks."""
    image = image_of(arguments.size)
    # In the precision in which it predicts, as the ViT.
    model = build(arguments, arguments.precision)
    fast = kv.models.for_inference(model, arguments.precision)
    del model

    def run() -> object:
        (detections,) = kv.detect(fast, image, 0.0)
        return detections.masks

    return run


def infer_in_tflite(arguments: argparse.Namespace) -> Work:
    """Return a function that detects objects in LiteRT and pastes their masks."""
    image = image_of(arguments.size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask_rcnn.tflite"
        run_again("benchmarks.kvision_detector", f"--export={path}")
        detector = kvision_edge.Detector(path, num_threads=2)
    return lambda: detector.detect(image, 0.0).masks


def export(arguments: argparse.Namespace) -> None:
    """Write a TFLite file."""
    images = image_of(arguments.size)[None]
    kind = arguments.precision
    kv.export.tflite(
        build(arguments),
        arguments.export,
        quantize=kind,
        calibration=images if kind == "int8" else None,
        images=images,
    )


def train(arguments: argparse.Namespace) -> Work:
    """Return a function that takes a step."""
    half = arguments.precision == "bfloat16"
    model = build(arguments, "mixed_bfloat16" if half else "float32")
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9))
    boxes = boxes_of(arguments.size, arguments.objects)
    number = (1, arguments.objects)
    targets = {
        "gt_boxes": boxes[None],
        "gt_labels": np.zeros(number, np.int32),
        "gt_masks": np.full((*number, 28, 28), 255, np.uint8),
    }
    image = tf.random.uniform((1, *arguments.size, 3), 0, 255)
    return lambda: model.train_on_batch(image, targets)


def boxes_of(size: list[int], number: int) -> np.ndarray:
    """Return boxes (number, 4) of a twentieth to a sixth of the image's height."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.05, 0.17, (number, 2)) * size[0]
    start = rng.uniform(0, 1, (number, 2)) * (np.array(size[::-1]) - sides)
    return np.concatenate([start, start + sides], axis=1).astype(np.float32)


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", required=True)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--proposals", type=int)
    parser.add_argument("--samples", type=int, default=2, help="of a bin of ROIAlign")
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--export", type=Path, help="a TFLite file to write instead")
    arguments = parser.parse_args()
    if arguments.export:
        export(arguments)
        return
    in_keras = arguments.precision in ("float32", "bfloat16")
    prepare = train if arguments.train else infer if in_keras else infer_in_tflite
    take_turns(lambda: prepare(arguments), "tensorflow", "keras", "ai-edge-litert")


if __name__ == "__main__":
    main()
