"""Over-fit Mask R-CNN on eight photos of COCO: can the whole path learn at all?

    python -m benchmarks.overfit --data COCO_MINI --weights MOBILENET
    python -m benchmarks.overfit --data COCO_MINI --backbone resnet50 --output MODEL

trains on the eight photos with objects that come first in the file and scores the same
photos in their original pixels. Nothing is augmented.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import keras

import kvision as kv
from kvision.train.precision import fastest_policy


def first_photos(path: Path, number: int) -> dict[str, Any]:
    """Read a COCO file and keep the first photos that have no crowds but objects."""
    content = json.loads(path.read_text())
    crowded = {a["image_id"] for a in content["annotations"] if a.get("iscrowd")}
    filled = {a["image_id"] for a in content["annotations"]} - crowded
    images = [image for image in content["images"] if image["id"] in filled][:number]
    kept = {image["id"] for image in images}
    annotations = [a for a in content["annotations"] if a["image_id"] in kept]
    return {**content, "images": images, "annotations": annotations}


def main() -> None:
    """Train, score, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="coco_mini folder")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="weights file of the backbone")
    parser.add_argument("--output", type=Path, help=".keras file to write")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--image-size", type=int, default=384)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    annotations = first_photos(
        arguments.data / "annotations" / "instances_train2017.json", 8
    )
    size = (arguments.image_size, arguments.image_size)
    shared = {
        "annotations": annotations,
        "images": arguments.data / "train2017",
        "image_size": size,
        "batch_size": 4,
        "cache": True,
    }
    model = kv.models.mask_rcnn(
        arguments.backbone,
        class_names=[category["name"] for category in annotations["categories"]],
        image_size=size,
        weights=arguments.weights,
        frozen_stages=0,
        anchor_sizes=(16, 32, 64, 128, 256),
        box_num_samples=256,
        box_hidden_dim=512,
        dtype=fastest_policy(),
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5,
        arguments.steps - 30,
        warmup_target=arguments.learning_rate,
        warmup_steps=30,
    )
    model.compile(keras.optimizers.AdamW(schedule, global_clipnorm=10.0))
    model.fit(
        kv.data.coco(**shared, first_epoch=0),
        steps_per_epoch=arguments.steps // 5,
        epochs=5,
        verbose=2,
        shuffle=False,
    )
    metrics = kv.callbacks.COCOMetrics(kv.data.coco(**shared), annotations)
    scores = metrics.score(model)
    figures = {name: round(scores[name], 4) for name in scores if name.endswith("ap50")}
    if arguments.output:
        model.save(arguments.output)
    print(
        json.dumps(
            {
                "objects": len(annotations["annotations"]),
                "seconds": round(time.perf_counter() - start),
                "box_ap": round(scores["box_ap"], 4),
                "mask_ap": round(scores["mask_ap"], 4),
                **figures,
            }
        )
    )


if __name__ == "__main__":
    main()
