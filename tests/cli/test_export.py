"""kvision export: names, versions, and which data goes where."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kvision.export
from kvision.cli import export
from tests.cli.coco_folder import write_coco

CALLS = list[tuple[Path, dict[str, Any]]]


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> CALLS:
    """Record the calls of both exporters instead of exporting."""
    found: CALLS = []

    def write(model: Any, path: Path, **options: Any) -> SimpleNamespace:
        found.append((path, options))
        report = {"differences": []}
        return SimpleNamespace(path=path, num_bytes=10, to_dict=lambda: report)

    monkeypatch.setattr(kvision.export, "saved_model", write)
    monkeypatch.setattr(kvision.export, "tflite", write)
    detector = SimpleNamespace(
        class_names=["square"],
        image_size=(64, 64),
        resize="pad",
        get_config=lambda: {"masks": True},
    )
    monkeypatch.setattr(export, "load_model", lambda _: detector)
    return found


def run(output: Path, **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "formats": ["saved_model", "tflite"],
        "quantize": "float32",
        "precision": None,
        "data": None,
        "images": None,
        "name": None,
    }
    return export.run(Path("models/cells.keras"), output=output, **settings | options)


def test_layout_of_tf_serving_with_a_new_version_each_time(
    calls: CALLS, tmp_path: Path
) -> None:
    result = run(tmp_path)
    assert result["files"] == {
        "saved_model": tmp_path / "cells/1",
        "tflite": tmp_path / "cells/cells.tflite",
    }
    (tmp_path / "cells/1").mkdir()
    (tmp_path / "cells/7").mkdir()
    (tmp_path / "cells/notes").mkdir()
    run(tmp_path, formats=["saved_model"], precision="bfloat16")
    assert calls[-1][0] == tmp_path / "cells/8"
    assert calls[-1][1]["precision"] == "bfloat16"
    assert calls[-1][1]["images"] is None


def test_training_set_calibrates_and_validation_set_compares(
    calls: CALLS, tmp_path: Path
) -> None:
    write_coco(tmp_path, "train", 3)
    write_coco(tmp_path, "val", 2)
    run(tmp_path, formats=["tflite"], quantize="int8", data=tmp_path, name="small")
    ((path, options),) = calls
    assert path == tmp_path / "small/small-int8.tflite"
    assert options["quantize"] == "int8"
    assert options["calibration"].num_images == 3
    assert options["data"].num_images == options["images"].num_images == 2
    images, targets = next(iter(options["data"]))
    assert images.shape[1:] == (64, 64, 3)
    assert "gt_masks" in targets
