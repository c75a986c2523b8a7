"""What only decoded pixels and several sets together show."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvision.data.check import check
from kvision.data.images import load_image
from tests.data import folder as coco_folder


def codes(report: object, severity: str) -> list[str]:
    return [found.code for found in report.of(severity)]  # type: ignore[attr-defined]


def test_sound_folder(tmp_path: Path) -> None:
    path, images = coco_folder.write(tmp_path)
    steps: list[tuple[int, int]] = []
    before = {file: file.read_bytes() for file in [path, *images.iterdir()]}
    report = check(path, images, progress=lambda *step: steps.append(step))
    assert report.num_errors == report.num_warnings == 0
    assert steps == [(1, 2), (2, 2)]
    assert before == {file: file.read_bytes() for file in [path, *images.iterdir()]}


def test_damaged_pixels(tmp_path: Path) -> None:
    path, images = coco_folder.write(tmp_path)
    data = bytearray((images / "a.png").read_bytes())
    data[3000:3100] = bytes(100)
    (images / "a.png").write_bytes(data)
    (found,) = check(path, images).of("error")
    assert found.code == "A4"
    assert "a.png (image 7)" in found.where


def test_broken_json_is_a_finding(tmp_path: Path) -> None:
    path, images = coco_folder.write(tmp_path)
    path.write_text("{")
    assert codes(check(path, images), "error") == ["B1"]


def test_doubles_within_and_across(tmp_path: Path) -> None:
    path, images = coco_folder.write(tmp_path)
    # The same pixels in other files.
    Image.fromarray(load_image(images / "a.png")).save(images / "copy.bmp")
    data = coco_folder.content()
    data["images"][1]["file_name"] = "copy.bmp"
    path.write_text(json.dumps(data))
    assert codes(check(path, images), "warning") == ["A13"]
    val = tmp_path / "val.json"
    data["images"][0]["file_name"] = "b.jpg"
    val.write_text(json.dumps(data))
    path.write_text(json.dumps(coco_folder.content()))
    for report in (check(path, images, others=[(val, images)]), check(tmp_path)):
        warnings = report.of("warning")
        assert [found.code for found in warnings] == ["A13", "A13"]
        assert "of another set" in warnings[0].message
        assert report.num_images == 4


def test_other_order_of_classes(tmp_path: Path) -> None:
    path, images = coco_folder.write(tmp_path)
    data = coco_folder.content()
    for category, name in zip(data["categories"], ("cat", "dog"), strict=True):
        category["name"] = name
    report = check(path, images, others=[(data, images)])
    assert "B2" in codes(report, "warning")


def test_crowded(tmp_path: Path) -> None:
    path, images = coco_folder.write(tmp_path)
    (found,) = check(path, images, max_instances=2).of("warning")
    assert (found.code, found.message) == ("B8", "3 objects, max_instances is 2")


def test_dark_16_bit_images(tmp_path: Path) -> None:
    path, images = coco_folder.write(tmp_path)
    values = np.full((40, 60), 900, np.uint16)
    Image.fromarray(values).save(images / "a.png")
    (found,) = check(path, images).of("warning")
    assert found.code == "A8"
    assert "values up to 900" in found.message
    Image.fromarray(values * 50).save(images / "a.png")
    assert check(path, images).num_warnings == 0


@pytest.mark.parametrize("name", ["coco_mini", "fruits_nuts/data"])
def test_real_data(shared_data: Path, name: str) -> None:
    report = check(shared_data / name)
    assert report.num_errors == report.num_warnings == 0
    assert report.num_images in (159, 18)
