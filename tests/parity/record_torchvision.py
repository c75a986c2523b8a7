"""Record the reference values of the parity tests: `python record_torchvision.py`.

Needs torch and torchvision 0.29, neither kvision nor TensorFlow. Writes
tests/golden/torchvision_*.npz in a few minutes on two cores. The tests read them
and need no torch.
"""

from pathlib import Path

import numpy as np
import record_ops
import torch
import torchvision
from record_models import (
    IMAGE_SIZE,
    LARGE_IMAGE_SIZE,
    ODD_IMAGE_SIZE,
    mask_rcnn,
    mask_rcnn_v2,
    normalised,
    record_full_size,
    record_inference,
    record_names,
    record_resnet101,
    record_training,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def write(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Write one file and say how large it is."""
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    path = GOLDEN / f"torchvision_{name}.npz"
    np.savez_compressed(path, made_with=np.array(versions), **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1024:.0f} KiB")


def main() -> None:
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    write("ops", record_ops.record())
    # 5 classes, and the epsilon that torchvision sets for its COCO_V1 weights.
    model = mask_rcnn(num_classes=6, epsilon=0.0, max_detections=100)
    images = normalised(2, IMAGE_SIZE)
    write("mask_rcnn", record_inference(model, images, background=7.0))
    # All 90 slots of COCO, and the epsilon of weights trained since.
    model = mask_rcnn(num_classes=91, epsilon=1e-5, max_detections=100)
    images = normalised(1, LARGE_IMAGE_SIZE)
    write("mask_rcnn_coco", record_inference(model, images, background=5.0))
    model = mask_rcnn(num_classes=6, epsilon=1e-5, max_detections=100)
    images = normalised(1, ODD_IMAGE_SIZE)
    write("mask_rcnn_odd", record_inference(model, images, background=6.0))
    model = mask_rcnn_v2(num_classes=6, max_detections=100)
    images = normalised(2, IMAGE_SIZE)
    write("mask_rcnn_v2", record_inference(model, images, background=5.5))
    model = mask_rcnn(num_classes=91, epsilon=0.0, max_detections=100)
    write("mask_rcnn_full", record_full_size(model, background=5.0))
    model = mask_rcnn_v2(num_classes=91, max_detections=100)
    write("mask_rcnn_v2_full", record_full_size(model, background=5.0))
    write("names", record_names())
    write("resnet101", record_resnet101())
    write("training", record_training(num_classes=6, epsilon=0.0, count=3))


if __name__ == "__main__":
    main()
