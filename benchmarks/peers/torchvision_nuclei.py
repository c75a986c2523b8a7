"""torchvision's Mask R-CNN on the batches of `benchmarks.nuclei`, as a process.

Run by `python -m benchmarks.nuclei` with the interpreter of an environment that holds
torchvision; prints one JSON object. The model is as near to kvision's as torchvision
allows: MobileNetV2 without classifier, frozen batch normalisation, a pyramid of 256
channels on strides 4 to 32 and one pooled level, anchors of 8 to 128 pixels, 2000
proposals, 512 sampled regions, heads of 1024 and 4 x 256.
"""

import argparse
import json
import os
import time

import numpy as np
import torch
import torchvision
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign


def resident_megabytes() -> float:
    """Return the resident memory of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_megabytes() -> float:
    """Return the largest resident memory this process ever had."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def build(positive_fraction: float) -> torch.nn.Module:
    """Build the detector with random weights: its speed does not depend on them."""
    features = torchvision.models.mobilenet_v2(norm_layer=FrozenBatchNorm2d).features
    levels = {"3": "0", "6": "1", "13": "2", "18": "3"}
    backbone = BackboneWithFPN(features, levels, [24, 32, 96, 1280], 256)
    names = ["0", "1", "2", "3"]
    return MaskRCNN(
        backbone,
        num_classes=2,
        min_size=256,
        max_size=256,
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in (8, 16, 32, 64, 128)), ((0.5, 1.0, 2.0),) * 5
        ),
        box_roi_pool=MultiScaleRoIAlign(names, 7, 2),
        mask_roi_pool=MultiScaleRoIAlign(names, 14, 2),
        box_positive_fraction=positive_fraction,
    )


def batches_of(path: str) -> list:
    """Read the batches that kvision trained on; masks become full bitmaps."""
    stored = np.load(path)
    batches = []
    for images, boxes, counts, masks in zip(
        stored["images"],
        stored["boxes"],
        stored["counts"],
        stored["masks"],
        strict=True,
    ):
        inputs, targets = [], []
        for i, count in enumerate(counts):
            image = torch.from_numpy(images[i].transpose(2, 0, 1).copy()).float() / 255
            inputs.append(image)
            bitmaps = np.unpackbits(masks[i, :count], axis=-1)
            targets.append(
                {
                    "boxes": torch.from_numpy(boxes[i, :count]),
                    "labels": torch.ones(count, dtype=torch.int64),
                    "masks": torch.from_numpy(bitmaps),
                }
            )
        batches.append((inputs, targets))
    return batches


def main() -> None:
    """Train for some steps and print what they cost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("batches")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--positive-fraction", type=float, default=0.25)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    half = arguments.precision == "bfloat16"
    batches = batches_of(arguments.batches)
    base = resident_megabytes()
    model = build(arguments.positive_fraction).train()
    model = model.to(memory_format=torch.channels_last)
    positives = []
    sample = model.roi_heads.select_training_samples

    def counted(*args):
        result = sample(*args)
        positives.extend(int((labels > 0).sum()) for labels in result[2])
        return result

    model.roi_heads.select_training_samples = counted
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    times = []
    for step in range(arguments.warmup + arguments.steps):
        inputs, targets = batches[step % len(batches)]
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            losses = model(inputs, targets)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        times.append(time.perf_counter() - start)
    measured = times[arguments.warmup :]
    number = len(batches[0][0])
    print(
        json.dumps(
            {
                "images_per_second": number * len(measured) / sum(measured),
                "first_step_seconds": times[0],
                "positives": float(np.mean(positives[number * arguments.warmup :])),
                "loss": float(total.detach()),
                "peak_megabytes": peak_megabytes() - base,
                "version": f"torchvision {torchvision.__version__}, "
                f"torch {torch.__version__}",
            }
        )
    )


if __name__ == "__main__":
    main()
