"""Which files a recipe means, and what comes from any step on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvision.train.detect_sources import find_sources
from kvision.train.recipes import DetectRecipe
from tests.train.conftest import TINY


def ids_of(annotations: Any) -> set[int]:
    if not isinstance(annotations, dict):
        annotations = json.loads(Path(annotations).read_text())
    return {image["id"] for image in annotations["images"]}


def test_a_folder_with_both(recipe: DetectRecipe, data_folder: Path) -> None:
    sources = find_sources(recipe)
    assert sources.train == (data_folder / "train.json", data_folder / "images")
    assert sources.val == (data_folder / "val.json", data_folder / "images")


def test_one_json_is_split(data_folder: Path) -> None:
    json_file = data_folder / "train.json"
    sources = find_sources(DetectRecipe(data=str(json_file), val_fraction=0.34))
    assert sources.val is not None
    train, val = ids_of(sources.train[0]), ids_of(sources.val[0])
    assert (len(train), len(val)) == (4, 2)
    assert train | val == ids_of(json_file)
    assert not train & val


def test_no_validation_if_none_is_wanted(data_folder: Path) -> None:
    recipe = DetectRecipe(data=str(data_folder / "train.json"), val_fraction=0)
    assert find_sources(recipe).val is None


def test_named_files_and_folders(data_folder: Path, tmp_path: Path) -> None:
    shutil.copy(data_folder / "val.json", tmp_path / "others.json")
    recipe = DetectRecipe(
        data=str(data_folder / "train.json"),
        images=str(data_folder / "images"),
        val=str(tmp_path / "others.json"),
    )
    sources = find_sources(recipe)
    assert sources.val == (tmp_path / "others.json", data_folder / "images")


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No such file or folder: .*nowhere"):
        find_sources(DetectRecipe(data=str(tmp_path / "nowhere")))


def test_more_than_one_json_that_could_be_meant(
    data_folder: Path, tmp_path: Path
) -> None:
    for name in ("a.json", "b.json"):
        shutil.copy(data_folder / "train.json", tmp_path / name)
    with pytest.raises(ValueError, match=r"no train set, but a, b: name the json"):
        find_sources(DetectRecipe(data=str(tmp_path)))


def test_any_step_of_any_epoch(data_folder: Path) -> None:
    settings = {**TINY, "model": "mask_rcnn"}
    sources = find_sources(DetectRecipe(data=str(data_folder), **settings))
    whole = list(sources.training().take(6))
    for epoch, step in ((0, 2), (1, 0), (1, 1)):
        images, targets = next(iter(sources.training(epoch, step)))
        same_images, same_targets = whole[3 * epoch + step]
        np.testing.assert_array_equal(images, same_images)
        for name in targets:
            np.testing.assert_array_equal(targets[name], same_targets[name])


def test_faster_rcnn_needs_no_masks(data_folder: Path, tmp_path: Path) -> None:
    content = json.loads((data_folder / "train.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    (tmp_path / "train.json").write_text(json.dumps(content))
    recipe = DetectRecipe(
        data=str(tmp_path / "train.json"),
        images=str(data_folder / "images"),
        model="faster_rcnn",
        image_size=128,
        batch_size=2,
    )
    sources = find_sources(recipe)
    _, targets = next(iter(sources.training()))
    assert "gt_masks" not in targets
    val = sources.validation(["box", "disc"])
    assert val.num_images == 1
