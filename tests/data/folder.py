"""A COCO folder of two small images, made to be spoilt by tests."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 60


def content() -> dict[str, Any]:
    """Two images; the first with a polygon, an RLE and a crowd, the second empty."""
    rle = {"size": [HEIGHT, WIDTH], "counts": [410, 5, 35, 5, 2400 - 455]}
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, 120, 2280]}
    return copy.deepcopy(
        {
            "images": [
                {"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
                {"id": 3, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH},
            ],
            "annotations": [
                # Pixels 20..34 x 5..19.
                annotation(1, 90, [20, 5, 15, 15], [[20, 5, 35, 5, 35, 20, 20, 20]]),
                # Rows 10..14 of columns 10 and 11.
                annotation(2, 4, [10, 10, 2, 5], rle),
                annotation(3, 4, [0, 0, 3, 40], crowd, iscrowd=1),
            ],
            "categories": [{"id": 90, "name": "dog"}, {"id": 4, "name": "cat"}],
        }
    )


def annotation(
    number: int, category: int, bbox: list[float], segmentation: Any, **more: Any
) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": 7,
        "category_id": category,
        "bbox": bbox,
        "segmentation": segmentation,
        "area": 1,
        "iscrowd": 0,
        **more,
    }


def pictures(folder: Path) -> Path:
    """Write the images; returns their folder."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(images / name)
    return images


def write(folder: Path, data: dict[str, Any] | None = None) -> tuple[Path, Path]:
    """Write json and images."""
    path = folder / "train.json"
    path.write_text(json.dumps(content() if data is None else data))
    return path, pictures(folder)
