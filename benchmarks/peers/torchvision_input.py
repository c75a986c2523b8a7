"""COCO photos as batches of 640 px with torchvision and a DataLoader of two workers."""

import argparse
from collections.abc import Callable

import torch
from torch.utils.data import DataLoader, RandomSampler
from torchvision import datasets
from torchvision.transforms import v2

from benchmarks.turns import take_turns

_SIZE = (640, 640)
_BATCHES = 8
_ENDLESS = 10**9


def prepare(arguments: argparse.Namespace) -> Callable[[], object]:
    """Return a function that takes eight batches."""
    moves = [
        v2.ToImage(),
        v2.RandomHorizontalFlip(),
        v2.ScaleJitter(_SIZE, (0.5, 1.5)),
        v2.RandomCrop(_SIZE, pad_if_needed=True),
        v2.SanitizeBoundingBoxes(),
    ]
    if arguments.colour:
        moves.append(v2.RandomPhotometricDistort())
    data = datasets.CocoDetection(
        arguments.images, arguments.annotations, transforms=v2.Compose(moves)
    )
    keys = ["image_id", "boxes", "labels", "masks"]
    data = datasets.wrap_dataset_for_transforms_v2(data, target_keys=keys)
    # An image without objects comes without boxes, which this transform refuses.
    filled = [i for i in range(len(data)) if data._dataset.coco.getAnnIds(data.ids[i])]
    subset = torch.utils.data.Subset(data, filled)
    loader = DataLoader(
        subset,
        batch_size=arguments.batch,
        sampler=RandomSampler(subset, replacement=True, num_samples=_ENDLESS),
        num_workers=2,
        collate_fn=collate,
    )
    batches = iter(loader)
    return lambda: [next(batches) for _ in range(_BATCHES)]


def collate(samples: list) -> tuple:
    """Stack the images of a batch; targets stay a list, as torchvision's models ask."""
    return torch.stack([image for image, _ in samples]), [one for _, one in samples]


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("annotations")
    parser.add_argument("images")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--colour", action="store_true")
    arguments = parser.parse_args()
    take_turns(lambda: prepare(arguments), "torch", "torchvision")


if __name__ == "__main__":
    main()
