"""COCO folders as datasets: labels, crowds, classes, splits, layouts."""

import importlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from kvision.data import DataError, coco, find_coco, load_image, split_coco
from kvision.ops.masks import paste_masks
from tests.data import folder as coco_folder

OPTIONS: dict[str, Any] = {"image_size": (40, 60), "batch_size": 2}


def load(path: Any, images: Path, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    dataset = coco(path, images, **{**OPTIONS, **options})
    pictures, targets = next(iter(dataset))
    return pictures.numpy(), {k: v.numpy() for k, v in targets.items()}


def test_objects_by_hand(tmp_path: Path) -> None:
    """Polygon, RLE, crowd; ids out of order; an image without objects."""
    path, folder = coco_folder.write(tmp_path)
    images, targets = load(path, folder, mask_size=5)
    np.testing.assert_array_equal(targets["image_ids"], [7, 3])
    # Categories 4 "cat" and 90 "dog" are labels 0 and 1.
    np.testing.assert_array_equal(targets["gt_labels"], [[1, 0, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(
        targets["gt_boxes"][0], [[20, 5, 35, 20], [10, 10, 12, 15], [0, 0, 3, 40]]
    )
    assert not targets["gt_boxes"][1].any()
    assert (targets["gt_masks"][0] == 255).all()
    np.testing.assert_array_equal(images[0], load_image(folder / "a.png"))


def test_masks_are_rasterised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second epoch has the masks of the first, and no polygon is drawn for it."""
    path, folder = coco_folder.write(tmp_path)
    dataset = coco(path, folder, **OPTIONS, augment=False)
    first = [targets["gt_masks"].numpy() for _, targets in dataset]

    def refuse(*_: Any) -> None:
        raise AssertionError("rasterised again")

    # The module: `kvision.data.coco` is the function of its name.
    module = importlib.import_module("kvision.data.coco")
    monkeypatch.setattr(module, "crop_mask", refuse)
    second = [targets["gt_masks"].numpy() for _, targets in dataset]
    np.testing.assert_array_equal(first, second)
    assert np.any(first)


def test_attributes(tmp_path: Path) -> None:
    path, folder = coco_folder.write(tmp_path)
    dataset = coco(path, folder, **OPTIONS)
    assert dataset.class_names == ["cat", "dog"]
    assert dataset.category_ids == [4, 90]
    assert dataset.image_ids == [7, 3]
    assert (dataset.num_images, dataset.max_instances) == (2, 3)


def test_content_instead_of_a_path(tmp_path: Path) -> None:
    path, folder = coco_folder.write(tmp_path)
    _, from_path = load(path, folder)
    _, from_dict = load(json.loads(path.read_text()), folder)
    for name, value in from_path.items():
        np.testing.assert_array_equal(value, from_dict[name])


def test_classes_are_chosen_by_name(tmp_path: Path) -> None:
    path, folder = coco_folder.write(tmp_path)
    dataset = coco(path, folder, class_names=["dog", "cat"], **OPTIONS)
    assert dataset.category_ids == [90, 4]
    _, targets = next(iter(dataset))
    np.testing.assert_array_equal(targets["gt_labels"][0], [0, 1, -1])
    # The crowd region is one of cats; the picture without dogs stays.
    dataset = coco(path, folder, class_names=["dog"], **OPTIONS)
    assert (dataset.num_images, dataset.max_instances) == (2, 1)
    with pytest.raises(ValueError, match=r"no category 'dgo'. Did you mean 'dog'\?"):
        coco(path, folder, class_names=["dgo"], **OPTIONS)
    with pytest.raises(ValueError, match="different names"):
        coco(path, folder, class_names=["dog", "dog"], **OPTIONS)


def test_boxes_alone(tmp_path: Path) -> None:
    data = coco_folder.content()
    for annotation in data["annotations"]:
        del annotation["segmentation"]
    path, folder = coco_folder.write(tmp_path, data)
    with pytest.raises(DataError, match="no segmentation; pass masks=False"):
        coco(path, folder, **OPTIONS)
    _, targets = load(path, folder, masks=False)
    assert "gt_masks" not in targets
    np.testing.assert_array_equal(targets["gt_labels"][0], [1, 0, -1])


def test_errors_stop_at_once(tmp_path: Path) -> None:
    data = coco_folder.content()
    data["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 1e9]]
    path, folder = coco_folder.write(tmp_path, data)
    (folder / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"(?s)2 errors.*b\.jpg.*annotation 1.*1e\+09"):
        coco(path, folder, **OPTIONS)


def test_skip_counts_and_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = coco_folder.content()
    data["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    path, folder = coco_folder.write(tmp_path, data)
    png = (folder / "a.png").read_bytes()
    (folder / "b.jpg").write_bytes(png[:3000] + bytes(100) + png[3100:])
    with caplog.at_level(logging.WARNING, "kvision"):
        dataset = coco(path, folder, on_error="skip", **OPTIONS)
    assert (dataset.num_images, dataset.max_instances) == (1, 2)
    (record,) = caplog.records
    message = record.getMessage()
    assert "1 left out for errors [B11]" in message
    assert "1 left out for errors [A4]" in message
    assert "b.jpg" in message
    with pytest.raises(ValueError, match="on_error"):
        coco(path, folder, on_error="ignore", **OPTIONS)  # type: ignore[arg-type]


def test_what_is_dropped_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = coco_folder.content()
    data["annotations"][1]["bbox"] = [3, 3, 0, 5]
    path, folder = coco_folder.write(tmp_path, data)
    with caplog.at_level(logging.WARNING, "kvision"):
        dataset = coco(path, folder, max_instances=1, **OPTIONS)
    assert dataset.max_instances == 1
    (record,) = caplog.records
    assert "1 warnings [B4]" in record.getMessage()
    assert "1 objects of 1 images left out [B8]" in record.getMessage()


def test_nothing_to_learn(tmp_path: Path) -> None:
    data = coco_folder.content()
    data["annotations"] = data["annotations"][2:]  # the crowd alone
    path, folder = coco_folder.write(tmp_path, data)
    with pytest.raises(DataError, match="2 images without a single object"):
        coco(path, folder, **OPTIONS)


def many(number: int) -> dict[str, Any]:
    data = coco_folder.content()
    image, annotation = data["images"][0], data["annotations"][0]
    data["images"] = [
        {**image, "id": n, "file_name": f"{n}.png"} for n in range(number)
    ]
    data["annotations"] = [
        {**annotation, "id": n + 1, "image_id": n} for n in range(number)
    ]
    return data


def test_split() -> None:
    data = many(40)
    parts = {
        subset: {i["id"] for i in split_coco(data, 0.2, subset)["images"]}
        for subset in ("training", "validation")
    }
    assert len(parts["validation"]) == 8
    assert not parts["training"] & parts["validation"]
    assert parts["training"] | parts["validation"] == set(range(40))
    other = {i["id"] for i in split_coco(data, 0.2, "validation", 1)["images"]}
    assert other != parts["validation"]
    kept = split_coco(data, 0.2, "validation")
    assert {a["image_id"] for a in kept["annotations"]} == parts["validation"]
    # Two more images: the set changes by at most as many.
    grown = {i["id"] for i in split_coco(many(42), 0.2, "validation")["images"]}
    assert len(grown & parts["validation"]) >= 6


def test_split_of_a_dataset(tmp_path: Path) -> None:
    data = many(5)
    path, folder = coco_folder.write(tmp_path, data)
    for n in range(5):
        shutil.copy(folder / "a.png", folder / f"{n}.png")
    sets = [
        coco(path, folder, validation_split=0.4, subset=subset, **OPTIONS)
        for subset in ("training", "validation")
    ]
    assert [one.num_images for one in sets] == [3, 2]
    assert sorted(sets[0].image_ids + sets[1].image_ids) == list(range(5))
    with pytest.raises(ValueError, match="go together"):
        coco(path, folder, validation_split=0.4, **OPTIONS)
    with pytest.raises(ValueError, match=r"between 0 and 1. Received: 1.5"):
        split_coco(data, 1.5, "training")
    with pytest.raises(ValueError, match="'val'"):
        split_coco(data, 0.5, "val")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 images, too few to split"):
        split_coco(many(1), 0.5, "training")


LAYOUTS = {
    "plain": ["train.json", "val.json", "images/a.png"],
    "coco": [
        "annotations/instances_train2017.json",
        "annotations/instances_val2017.json",
        "annotations/captions_val2017.json",
        "train2017/a.png",
        "val2017/a.png",
    ],
    "roboflow": [
        "train/_annotations.coco.json",
        "valid/_annotations.coco.json",
        "train/a.png",
        "valid/a.png",
    ],
    "inside": [
        "annotations/train.json",
        "annotations/val.json",
        "images/train/a.png",
        "images/val/a.png",
    ],
}
FOLDERS = {
    "plain": ["images", "images"],
    "coco": ["train2017", "val2017"],
    "roboflow": ["train", "valid"],
    "inside": ["images/train", "images/val"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    for name in LAYOUTS[layout]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(coco_folder.content()))
    found = find_coco(tmp_path)
    assert [name for name, _, _ in found] == ["train", "val"]
    assert [f.relative_to(tmp_path).as_posix() for _, _, f in found] == FOLDERS[layout]
    assert [json.is_file() for _, json, _ in found] == [True, True]
    # One of the files alone.
    assert find_coco(found[1][1])[0][1:] == found[1][1:]


def test_other_files_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"images": 3}')
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="No COCO instances json in"):
        find_coco(tmp_path)
    (tmp_path / "train.json").write_text("{")  # broken, but meant
    assert [name for name, _, _ in find_coco(tmp_path)] == ["train"]


def originals(path: Path) -> dict[int, list[dict[str, Any]]]:
    grouped: dict[int, list[dict[str, Any]]] = {}
    for annotation in json.loads(path.read_text())["annotations"]:
        grouped.setdefault(annotation["image_id"], []).append(annotation)
    return grouped


def bitmap(segmentation: Any, height: int, width: int) -> np.ndarray:
    if isinstance(segmentation, dict):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    else:
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return coco_mask.decode(rle).astype(bool)


def test_real_photos_come_back(shared_data: Path) -> None:
    """Boxes and masks in the input, mapped back, are those of the json."""
    root = shared_data / "coco_mini"
    path = root / "annotations/instances_val2017.json"
    dataset = coco(path, root / "val2017", image_size=(320, 320), batch_size=8)
    assert len(dataset.class_names) == 80
    wanted = originals(path)
    overlaps = []
    for _, targets in dataset.take(4):
        t = {name: value.numpy() for name, value in targets.items()}
        for row, image_id in enumerate(t["image_ids"].tolist()):
            expected = wanted.get(image_id, [])
            used = t["gt_boxes"][row].any(-1)
            assert used.sum() == len(expected)
            back = t["gt_boxes"][row][used] / t["scales"][row][[1, 0, 1, 0]]
            height, width = t["original_sizes"][row].tolist()
            for number, annotation in enumerate(expected):
                x, y, w, h = annotation["bbox"]
                np.testing.assert_allclose(back[number], [x, y, x + w, y + h], atol=0.6)
                label = t["gt_labels"][row, number]
                if annotation["iscrowd"]:
                    assert label == -1
                    continue
                assert dataset.category_ids[label] == annotation["category_id"]
                mask = bitmap(annotation["segmentation"], height, width)
                grid = t["gt_masks"][row, number : number + 1].astype(np.float32)
                pasted = paste_masks(grid / 255, back[number : number + 1], mask.shape)
                pasted = np.asarray(pasted)[0] >= 0.5
                overlaps.append((pasted & mask).sum() / (pasted | mask).sum())
    assert len(overlaps) > 100
    assert np.mean(overlaps) > 0.99
    assert np.percentile(overlaps, 2) > 0.9
