"""torchvision's Mask R-CNN ResNet-50 FPN at torch's best."""

import argparse
from collections.abc import Callable

import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from benchmarks.turns import take_turns


def prepare(arguments: argparse.Namespace) -> Callable[[], object]:
    """Return a function that runs an image."""
    torch.manual_seed(0)
    number = arguments.proposals
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        min_size=min(arguments.size),
        max_size=max(1333, *arguments.size),
        box_score_thresh=0.0,
        **({"rpn_post_nms_top_n_test": number} if number else {}),
    )
    model = model.to(memory_format=torch.channels_last)
    image = torch.rand(3, *arguments.size)
    run = train if arguments.train else infer
    return run(model, image, arguments)


def infer(
    model: torch.nn.Module, image: torch.Tensor, arguments: argparse.Namespace
) -> Callable[[], object]:
    """Return a function that detects objects and pastes their masks."""
    model.eval()

    def run() -> object:
        with torch.inference_mode(), autocast(arguments.precision):
            return model([image])

    return run


def train(
    model: torch.nn.Module, image: torch.Tensor, arguments: argparse.Namespace
) -> Callable[[], object]:
    """Return a function that takes a step."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    number, (height, width) = arguments.objects, arguments.size
    sides = (0.05 + 0.12 * torch.rand(number, 2)) * height
    start = torch.rand(number, 2) * (torch.tensor([width, height]) - sides)
    targets = [
        {
            "boxes": torch.cat([start, start + sides], 1),
            "labels": torch.ones(number, dtype=torch.long),
            "masks": torch.ones(number, height, width, dtype=torch.uint8),
        }
    ]

    def step() -> object:
        with autocast(arguments.precision):
            loss = sum(model([image], targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def autocast(precision: str) -> torch.autocast:
    """Return the context of a precision."""
    dtype = getattr(torch, precision)
    return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", required=True)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--proposals", type=int)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    take_turns(lambda: prepare(arguments), "torch", "torchvision")


if __name__ == "__main__":
    main()
