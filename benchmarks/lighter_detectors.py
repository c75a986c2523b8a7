"""The AP that lighter 8-bit TFLite detectors lose, on the photos of `overfit`.

    python -m benchmarks.lighter_detectors --data COCO_MINI --model MODEL

takes the model that `python -m benchmarks.overfit ... --output MODEL` has written,
builds it again with fewer proposals and samples, exports it in 8 bits, calibrated on
the eight photos, and scores the files on them.
"""

import argparse
import json
import tempfile
from pathlib import Path

import keras
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
        model = whole.rebuilt(**chosen)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            parity = kv.export.tflite(
                model, path, quantize="int8", calibration=photos, data=photos
            )
        (difference,) = parity.differences
        scores = {key: pair[1] for key, pair in difference.ap.items()}
        found[name] = scores
        cells = (f"{scores[key]:.4f}" if key in scores else "" for key in columns)
        table.add_row(f"int8, {name}", *cells)
    Console(width=100).print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
