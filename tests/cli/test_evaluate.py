"""kvision eval: tables, files, and the choice of a set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvision.cli import evaluate
from kvision.cli.arguments import choose_data_set
from kvision.models import mask_rcnn
from tests.cli.coco_folder import write_coco


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model without training; its scores are low but all of them are there."""
    model = mask_rcnn(
        "mobilenet_v2",
        class_names=["square"],
        image_size=(64, 64),
        pyramid_channels=8,
        box_hidden_dim=8,
        mask_channels=8,
        rpn_post_nms_top_k=20,
        score_threshold=0.0,
        max_detections=5,
    )
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


def run(model: Path, data: Path, **options: Any) -> dict[str, Any]:
    settings = {
        "images": None,
        "set_name": None,
        "batch_size": 2,
        "max_detections": 5,
        "score_threshold": 0.5,
        "output": None,
    }
    return evaluate.run(model, data, **(settings | options))


def test_scores_tables_and_files(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(tmp_path, "train", 2)
    write_coco(tmp_path, "val", 3)
    scores = run(model_file, tmp_path, output=tmp_path / "out")
    printed = capsys.readouterr().out
    assert "3 images" in printed  # val, not train
    assert "ap75" in printed
    assert "square" in printed
    assert len([name for name in scores if name[:4] in ("box_", "mask")]) == 22
    assert all(path.stat().st_size for path in scores["files"])
    names = {path.name for path in scores["files"]}
    assert {"scores.json", "precision_recall_mask.png", "confusion_matrix.png"} < names
    stored = json.loads((tmp_path / "out/scores.json").read_text())
    assert stored["per_class"]["square"]["box_ap"] == scores["box_ap"]


def test_more_detections_than_the_model_was_built_for(model_file: Path) -> None:
    from kvision.cli.arguments import load_detector

    model = load_detector(model_file)
    assert evaluate.with_max_detections(model, 5) is model
    more = evaluate.with_max_detections(model, 8)
    images = np.full((1, 64, 64, 3), 99, np.uint8)
    few, many = model(images), more(images)
    assert many["scores"].shape == (1, 8)
    np.testing.assert_array_equal(many["scores"][:, :5], few["scores"])


def test_model_of_other_classes_is_refused(model_file: Path, tmp_path: Path) -> None:
    write_coco(tmp_path, "val", 1, class_name="circle")
    with pytest.raises(ValueError, match="has no category 'square'"):
        run(model_file, tmp_path)


def test_choice_of_a_set(tmp_path: Path) -> None:
    only = write_coco(tmp_path, "train", 1)
    assert choose_data_set(tmp_path, None, None)[1] == only
    val = write_coco(tmp_path, "val", 1)
    assert choose_data_set(tmp_path, None, None)[1] == val
    assert choose_data_set(tmp_path, None, "train")[1] == only
    assert choose_data_set(only, tmp_path / "images", None)[0] == "train"
    with pytest.raises(ValueError, match=r"sets train, val: .* --set test"):
        choose_data_set(tmp_path, None, "test")
