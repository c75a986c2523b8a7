"""A small COCO data set on disk, for tests of commands and pages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 24


def write_coco(folder: Path, name: str, count: int, class_name: str = "square") -> Path:
    """Write `count` photos of one bright square each to images/, and `name`.json.

    Args:
        folder: gets `name`.json and images/.
        name: of the json; photos are called after it.
        count: number of photos of 64 x 80 pixels.
        class_name: of the only category.

    Returns:
        The json.
    """
    rng = np.random.default_rng(sum(map(ord, name)))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        pixels = rng.integers(0, 60, (64, 80, 3), dtype=np.uint8)
        x, y = (int(v) for v in rng.integers(4, 34, 2))
        right, bottom = x + SIDE, y + SIDE
        pixels[y:bottom, x:right] += 180
        file_name = f"{name}_{number}.png"
        Image.fromarray(pixels).save(folder / "images" / file_name)
        images.append({"id": number, "file_name": file_name, "height": 64, "width": 80})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 7,
                "bbox": [x, y, SIDE, SIDE],
                "area": SIDE * SIDE,
                "iscrowd": 0,
                "segmentation": [[x, y, right, y, right, bottom, x, bottom]],
            }
        )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": class_name}],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path
