"""The AP that lighter TFLite detectors lose, on the photos of `overfit`.

    python -m benchmarks.lighter_detectors --data COCO_MINI --model MODEL

takes the model that `python -m benchmarks.overfit ... --output MODEL` has written,
builds it again with fewer proposals and samples, exports it with weights or all of 8
bits, calibrated on the eight photos, and scores the files on them.
"""

import argparse
import json
import tempfile
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import kvision as kv
from benchmarks.overfit import first_photos

_LIGHTER: dict[str, dict[str, int]] = {
    "as it is": {},
    "300 proposals": {"rpn_post_nms_top_k": 300},
    "300 proposals, 1 sample": {
        "rpn_post_nms_top_k": 300,
        "roi_align_sampling_ratio": 1,
    },
    "100 proposals, 1 sample": {
        "rpn_post_nms_top_k": 100,
        "roi_align_sampling_ratio": 1,
    },
}


def average_precision(
    model: keras.Model, kind: str, photos: tf.data.Dataset
) -> dict[str, float]:
    """Export and score; a file that loses too much is scored as well."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        try:
            parity = kv.export.tflite(
                model,
                path,
                quantize=kind,
                calibration=photos if kind == "int8" else None,
                images=photos,
                data=photos,
            )
        except kv.export.ParityError as error:
            parity = error.parity
    (difference,) = parity.differences
    return {name: after for name, (_, after) in difference.ap.items()}


def main() -> None:
    """Export, score, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="coco_mini folder")
    parser.add_argument("--model", type=Path, required=True, help=".keras file")
    arguments = parser.parse_args()
    whole = keras.saving.load_model(arguments.model)
    annotations = first_photos(
        arguments.data / "annotations" / "instances_train2017.json", 8
    )
    photos = kv.data.coco(
        annotations,
        arguments.data / "train2017",
        image_size=whole.image_size,
        batch_size=1,
    )
    before = kv.callbacks.COCOMetrics(photos, annotations).score(whole)
    columns = ("box_ap", "mask_ap", "mask_ap50")
    table = Table("", *columns)
    table.add_row("in Keras", *(f"{before[name]:.4f}" for name in columns))
    found = {"in Keras": {name: before[name] for name in columns}}
    for name, chosen in _LIGHTER.items():
        for kind in ("dynamic", "int8"):
            scores = average_precision(whole.rebuilt(**chosen), kind, photos)
            found[f"{kind}, {name}"] = scores
            cells = (f"{scores[key]:.4f}" if key in scores else "" for key in columns)
            table.add_row(f"{kind}, {name}", *cells)
    Console(width=100).print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
