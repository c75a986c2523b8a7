"""Every fault of a COCO file, one at a time, and what is read from a sound one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvision.data.annotations import examine, read_annotations
from kvision.data.findings import DataError, Report
from tests.data import folder as coco_folder

Spoil = Callable[[dict[str, Any], Path], Any]


def examined(tmp_path: Path, spoil: Spoil | None = None, **options: Any) -> Any:
    data = coco_folder.content()
    images = coco_folder.pictures(tmp_path)
    if spoil:
        spoil(data, images)
    report = Report()
    records, categories = examine(data, images, report, **options)
    return records, categories, report


def test_sound_folder(tmp_path: Path) -> None:
    records, categories, report = examined(tmp_path, need_masks=True)
    assert report.num_errors == report.num_warnings == 0
    assert (report.num_images, report.num_annotations) == (2, 3)
    assert categories == {4: "cat", 90: "dog"}
    first, second = records
    assert (first.image_id, first.size, second.instances) == (7, (40, 60), [])
    boxes = [instance.box.tolist() for instance in first.instances]
    assert boxes == [[20, 5, 35, 20], [10, 10, 12, 15], [0, 0, 3, 40]]
    assert [i.is_crowd for i in first.instances] == [False, False, True]
    assert {found.code for found in report.of("info")} == {"B2", "B9"}


def drop(key: str, number: int, name: str) -> Spoil:
    return lambda data, _: data[key][number].pop(name)


def put(key: str, number: int, name: str, value: Any) -> Spoil:
    return lambda data, _: data[key][number].update({name: value})


def file(name: str, content: bytes | None) -> Spoil:
    def spoil(_: dict[str, Any], images: Path) -> None:
        if content is None:
            (images / name).unlink()
        else:
            (images / name).write_bytes(content)

    return spoil


def rotated(data: dict[str, Any], images: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(images / "b.jpg", exif=exif)


ERRORS: list[tuple[str, Spoil, str]] = [
    ("A1", file("a.png", None), r"a\.png \(image 7\): no such file"),
    ("A2", file("a.png", b""), "a.png .* empty"),
    ("A3", file("a.png", b"<html>"), "a.png .* HTML"),
    ("A12", put("images", 0, "width", 61), "61 x 40 pixels .* the file has 60 x 40"),
    ("A12", rotated, "after its EXIF orientation 6.*ignore EXIF"),
    ("A14", put("images", 0, "file_name", "../a.png"), "leads out of the image folder"),
    ("A14", put("images", 0, "file_name", "/etc/passwd"), "leads out"),
    ("A15", lambda data, _: data["annotations"].clear(), "no.* usable object"),
    ("A15", lambda data, _: data["images"].clear(), "no images"),
    ("B1", put("images", 0, "id", "7"), "integer id and a file_name"),
    ("B1", drop("images", 0, "file_name"), "image number 0"),
    ("B1", lambda data, _: data["categories"].clear(), "no categories"),
    (
        "B2",
        put("annotations", 0, "category_id", 5),
        r"annotation 1: unknown .* 5\. Kno",
    ),
    ("B2", put("annotations", 0, "category_id", [90]), "unknown category_id"),
    ("B2", put("categories", 1, "name", "dog"), "occurs twice"),
    ("B2", put("categories", 1, "id", 90), "occurs twice"),
    ("B2", drop("categories", 1, "name"), "category number 1"),
    ("B5", put("annotations", 0, "bbox", [1, 2, float("nan"), 4]), "4 finite numbers"),
    ("B5", put("annotations", 0, "bbox", [1, 2, 3]), "4 finite numbers"),
    ("B10", put("images", 1, "id", 7), "two images have this id"),
    (
        "B11",
        put("annotations", 0, "segmentation", [[1, 2, 3, 4]]),
        "annotation 1: a pol",
    ),
    ("B11", put("annotations", 0, "segmentation", []), "masks=False"),
    (
        "B12",
        put("annotations", 0, "segmentation", [[1, 2, 3, 4, 5, 1e9]]),
        "far outside",
    ),
    (
        "B13",
        put("annotations", 1, "segmentation", {"size": [1, 1]}),
        "annotation 2: RLE",
    ),
]


@pytest.mark.parametrize(("code", "spoil", "message"), ERRORS)
def test_errors(tmp_path: Path, code: str, spoil: Spoil, message: str) -> None:
    *_, report = examined(tmp_path, spoil, need_masks=True)
    assert code in [found.code for found in report.of("error")]
    with pytest.raises(DataError, match=message):
        report.raise_errors()


WARNINGS: list[tuple[str, Spoil, str, int]] = [
    ("A13", put("images", 1, "file_name", "a.png"), "more than once", 3),
    ("B1", put("annotations", 0, "image_id", 99), "no image 99; left out", 2),
    ("B4", put("annotations", 0, "bbox", [20, 5, 0, 15]), "no area; left out", 2),
    ("B4", put("annotations", 0, "bbox", [35, 20, -15, -15]), "no area; left out", 2),
    ("B10", put("annotations", 0, "id", 2), "the id occurs twice", 3),
    ("B14", put("annotations", 0, "bbox", [1, 1, 5, 5]), "not the box of its mask", 3),
    (
        "B14",
        put("annotations", 0, "segmentation", {"size": [40, 60], "counts": [2400]}),
        "the mask is empty; left out",
        2,
    ),
]


@pytest.mark.parametrize(("code", "spoil", "message", "kept"), WARNINGS)
def test_warnings(
    tmp_path: Path, code: str, spoil: Spoil, message: str, kept: int
) -> None:
    records, _, report = examined(tmp_path, spoil)
    assert report.num_errors == 0
    found = [one for one in report.of("warning") if one.code == code]
    assert len(found) == 1
    assert message in found[0].message
    assert len(records[0].instances) == kept


def test_box_of_the_mask_is_used_where_they_disagree(tmp_path: Path) -> None:
    records, *_ = examined(tmp_path, put("annotations", 0, "bbox", [1, 1, 5, 5]))
    assert records[0].instances[0].box.tolist() == [20, 5, 35, 20]
    records, *_ = examined(tmp_path, drop("annotations", 0, "bbox"))
    assert records[0].instances[0].box.tolist() == [20, 5, 35, 20]


def test_box_partly_outside_is_clipped(tmp_path: Path) -> None:
    def spoil(data: dict[str, Any], _: Path) -> None:
        data["annotations"][0].update(bbox=[-3, 5, 9, 38], segmentation=None)

    records, _, report = examined(tmp_path, spoil)
    assert records[0].instances[0].box.tolist() == [0, 5, 6, 40]
    assert "reaches out of the 60 x 40 image" in report.of("warning")[0].message


def test_box_outside_is_left_out(tmp_path: Path) -> None:
    def spoil(data: dict[str, Any], _: Path) -> None:
        data["annotations"][0].update(bbox=[70, 5, 9, 9], segmentation=None)

    records, _, report = examined(tmp_path, spoil)
    assert len(records[0].instances) == 2
    assert "lies outside the 60 x 40 image" in report.of("warning")[0].message


INFOS: list[tuple[str, Spoil, str]] = [
    (
        "A6",
        lambda _, i: Image.new("RGB", (60, 40)).save(i / "b.jpg", "PNG"),
        "it is PNG",
    ),
    ("A12", drop("images", 0, "width"), "taken from the file"),
    ("B10", put("annotations", 0, "id", 0), "renumbered"),
    ("B10", drop("annotations", 0, "area"), "no area; filled in"),
    ("B15", put("annotations", 0, "keypoints", [1, 2, 2]), "keypoints are not used"),
]


@pytest.mark.parametrize(("code", "spoil", "message"), INFOS)
def test_infos(tmp_path: Path, code: str, spoil: Spoil, message: str) -> None:
    *_, report = examined(tmp_path, spoil)
    assert report.num_errors == report.num_warnings == 0
    assert any(f.code == code and message in f.message for f in report.of("info"))


def test_tiny_images_get_a_warning(tmp_path: Path) -> None:
    def spoil(data: dict[str, Any], images: Path) -> None:
        Image.new("RGB", (60, 1)).save(images / "b.jpg")
        data["images"][1]["height"] = 1

    *_, report = examined(tmp_path, spoil)
    assert [found.code for found in report.of("warning")] == ["A11"]


def test_links_that_climb_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    Image.new("RGB", (60, 40)).save(outside)

    def spoil(_: dict[str, Any], images: Path) -> None:
        (images / "a.png").rename(images / "real.png")
        os.symlink(outside, images / "a.png")

    *_, report = examined(tmp_path, spoil)
    assert [found.code for found in report.of("error")] == ["A14"]
    (tmp_path / "images/a.png").unlink()
    os.symlink(tmp_path / "images/real.png", tmp_path / "images/a.png")
    report = Report()
    examine(coco_folder.content(), tmp_path / "images", report)
    assert report.num_errors == 0


def many_boxes(values: list[list[float]]) -> Spoil:
    def spoil(data: dict[str, Any], _: Path) -> None:
        data["annotations"] = [
            coco_folder.annotation(number, 4, box, None)
            for number, box in enumerate(values, 1)
        ]

    return spoil


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]], "normalised"),
        ([[30, 20, 50, 39], [10, 5, 40, 25], [40, 10, 55, 30]], "x1, y1, x2, y2"),
        ([[30, 20, 20, 19], [10, 5, 30, 20], [40, 10, 15, 20]], ""),
    ],
)
def test_suspicious_boxes(
    tmp_path: Path, boxes: list[list[float]], message: str
) -> None:
    *_, report = examined(tmp_path, many_boxes(boxes))
    found = [one for one in report.of("warning") if one.code == "B7"]
    assert len(found) == bool(message)
    if message:
        assert message in found[0].message
        assert f"annotation 2: {boxes[1]}" in found[0].message


def test_broken_json(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text('{"images": [],\n "annotations": [}')
    with pytest.raises(
        DataError, match=r"train\.json: broken json at line 2, column 18"
    ):
        read_annotations(path)
    with pytest.raises(DataError, match=r"val\.json: no such file"):
        read_annotations(tmp_path / "val.json")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as json"):
        read_annotations(path)


@pytest.mark.parametrize("value", [[], {}, {"images": [], "annotations": [1]}])
def test_outline(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r'no list of objects "(images|annotations)"'):
        read_annotations(path)


def test_missing_folder(tmp_path: Path) -> None:
    report = Report()
    examine(coco_folder.content(), tmp_path / "nowhere", report)
    assert [found.code for found in report.of("error")] == ["A15"]


def test_progress(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    examined(tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("path", "folder", "images", "instances", "crowds"),
    [
        ("nuclei/train.json", "nuclei/images", 433, 13493, 0),
        (
            "coco_mini/annotations/instances_val2017.json",
            "coco_mini/val2017",
            79,
            624,
            5,
        ),
        ("fruits_nuts/data/trainval.json", "fruits_nuts/data/images", 18, 165, 0),
    ],
)
def test_real_data(
    shared_data: Path, path: str, folder: str, images: int, instances: int, crowds: int
) -> None:
    report = Report()
    records, _ = examine(
        shared_data / path, shared_data / folder, report, need_masks=True
    )
    assert report.num_errors == report.num_warnings == 0
    assert len(records) == images
    found = [instance for record in records for instance in record.instances]
    assert len(found) == instances
    assert sum(instance.is_crowd for instance in found) == crowds
    sizes = {record.image_id: record.size for record in records}
    for record in records:
        height, width = sizes[record.image_id]
        for instance in record.instances:
            x1, y1, x2, y2 = instance.box
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
    assert all(np.isfinite(instance.box).all() for instance in found)
