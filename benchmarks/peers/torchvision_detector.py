"""torchvision's Mask R-CNN ResNet-50 FPN on an image of 800 x 1088 at torch's best."""

import argparse
from collections.abc import Callable

import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from benchmarks.turns import take_turns

_NUM_OBJECTS = 10


def prepare(arguments: argparse.Namespace) -> Callable[[], object]:
    """Return a function that runs an image."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        min_size=800,
        max_size=1333,
        box_score_thresh=0.0,
    )
    model = model.to(memory_format=torch.channels_last)
    image = torch.rand(3, 800, 1088)
    run = train if arguments.train else infer
    return run(model, image, getattr(torch, arguments.precision))


def infer(
    model: torch.nn.Module, image: torch.Tensor, dtype: torch.dtype
) -> Callable[[], object]:
    """Return a function that detects objects and pastes their masks."""
    model.eval()

    def run() -> object:
        with torch.inference_mode(), autocast(dtype):
            return model([image])

    return run


def train(
    model: torch.nn.Module, image: torch.Tensor, dtype: torch.dtype
) -> Callable[[], object]:
    """Return a function that takes a step."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    corners = torch.rand(_NUM_OBJECTS, 2) * torch.tensor([900.0, 600.0])
    boxes = torch.cat([corners, corners + 40 + 100 * torch.rand(_NUM_OBJECTS, 2)], 1)
    targets = [
        {
            "boxes": boxes,
            "labels": torch.ones(_NUM_OBJECTS, dtype=torch.long),
            "masks": torch.ones(_NUM_OBJECTS, 800, 1088, dtype=torch.uint8),
        }
    ]

    def step() -> object:
        with autocast(dtype):
            loss = sum(model([image], targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def autocast(dtype: torch.dtype) -> torch.autocast:
    """Return the context of a precision."""
    return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", required=True)
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    take_turns(lambda: prepare(arguments))


if __name__ == "__main__":
    main()
