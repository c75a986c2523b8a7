"""timm's Vision Transformers: inference and training at torch's best."""

import argparse
from collections.abc import Callable

import timm
import torch

from benchmarks.turns import take_turns

_NAMES = {
    "Ti/16": "vit_tiny_patch16_224",
    "S/16": "vit_small_patch16_224",
    "B/16": "vit_base_patch16_224",
    "L/16": "vit_large_patch16_224",
}


def prepare(arguments: argparse.Namespace) -> Callable[[], object]:
    """Return a function that runs a batch."""
    torch.manual_seed(0)
    model = timm.create_model(_NAMES[arguments.variant])
    images = torch.rand(arguments.batch, 3, 224, 224)
    if arguments.train:
        return train(model, images, arguments)
    return infer(model, images, arguments)


def infer(
    model: torch.nn.Module, images: torch.Tensor, arguments: argparse.Namespace
) -> Callable[[], object]:
    """Return a function that classifies a batch."""
    model.eval()
    if arguments.precision == "int8":
        linear = {torch.nn.Linear}
        model = torch.ao.quantization.quantize_dynamic(model, linear, torch.qint8)
    else:
        dtype = getattr(torch, arguments.precision)
        model, images = model.to(dtype), images.to(dtype)
    if arguments.compile:
        model = torch.compile(model)

    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def train(
    model: torch.nn.Module, images: torch.Tensor, arguments: argparse.Namespace
) -> Callable[[], object]:
    """Return a function that takes a step with AdamW."""
    if arguments.compile:
        model = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    labels = torch.zeros(len(images), dtype=torch.long)
    dtype = getattr(torch, arguments.precision)
    is_half = arguments.precision != "float32"

    def step() -> object:
        with torch.autocast("cpu", dtype, enabled=is_half):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=_NAMES)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    take_turns(lambda: prepare(arguments), "torch", "timm")


if __name__ == "__main__":
    main()
