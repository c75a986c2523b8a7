"""A small data set on disk and a small recipe for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvision.train import DetectRecipe

SIZE = 128


def write_coco(folder: Path, name: str, num_images: int, seed: int) -> None:
    """Write NAME.json and its images: squares ("box") and discs ("disc") on noise."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(1, num_images + 1):
        pixels = rng.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
        for _ in range(rng.integers(1, 4)):
            cx, cy = rng.uniform(30, SIZE - 30, 2)
            radius = rng.uniform(12, 25)
            is_disc = bool(rng.integers(2))
            angles = (
                np.arange(24) * (np.pi / 12) if is_disc else np.pi / 4 * np.r_[1:8:2]
            )
            reach = radius if is_disc else radius * np.sqrt(2)
            xs, ys = cx + reach * np.cos(angles), cy + reach * np.sin(angles)
            near = (
                np.hypot(x - cx, y - cy)
                if is_disc
                else np.maximum(abs(x - cx), abs(y - cy))
            )
            pixels[near < radius] = (230, 170, 40) if is_disc else (60, 160, 240)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 * seed + number,
                    "category_id": 1 + is_disc,
                    "bbox": [cx - radius, cy - radius, 2 * radius, 2 * radius],
                    "area": float(np.pi if is_disc else 4) * radius**2,
                    "iscrowd": 0,
                    "segmentation": [np.stack([xs, ys], 1).ravel().tolist()],
                }
            )
        file_name = f"{name}{number}.png"
        Image.fromarray(pixels).save(folder / "images" / file_name)
        images.append(
            {
                "id": 100 * seed + number,
                "file_name": file_name,
                "height": SIZE,
                "width": SIZE,
            }
        )
    categories = [{"id": 1, "name": "box"}, {"id": 2, "name": "disc"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 6 images to train on and 3 to validate on."""
    folder = tmp_path_factory.mktemp("data") / "forms"
    write_coco(folder, "train", 6, seed=1)
    write_coco(folder, "val", 3, seed=2)
    return folder


TINY: dict[str, Any] = {
    "weights": None,
    "image_size": SIZE,
    "batch_size": 2,
    "epochs": 2,
    "mask_size": 14,
    "cache": True,
    "arguments": {
        "pyramid_channels": 32,
        "anchor_sizes": [16, 32, 64, 96, 128],
        "box_hidden_dim": 32,
        "box_num_samples": 32,
        "mask_channels": 16,
        "mask_num_convs": 1,
        "rpn_num_samples": 64,
        "rpn_train_pre_nms_top_k": 100,
        "rpn_train_post_nms_top_k": 100,
        "rpn_pre_nms_top_k": 100,
        "rpn_post_nms_top_k": 50,
        "max_detections": 10,
    },
}


@pytest.fixture
def recipe(data_folder: Path) -> DetectRecipe:
    """A recipe of two epochs of three steps with a tiny model."""
    return DetectRecipe(data=str(data_folder), **TINY)
