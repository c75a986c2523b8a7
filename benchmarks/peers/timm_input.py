"""timm's input pipeline for `benchmarks.classification_input`, as a process."""

import argparse
import itertools
import json
import time

from timm.data import create_transform
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder


def main() -> None:
    """Read images and print how many came a second."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    arguments = parser.parse_args()
    transform = create_transform(
        224,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
    )
    loader = DataLoader(
        ImageFolder(arguments.data, transform),
        arguments.batch_size,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
        drop_last=True,
    )
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for _ in range(2):
        next(batches)
    steps = -(-arguments.images // arguments.batch_size)
    start = time.perf_counter()
    for _ in range(steps):
        next(batches)
    seconds = time.perf_counter() - start
    print(json.dumps({"images_per_second": steps * arguments.batch_size / seconds}))


if __name__ == "__main__":
    main()
