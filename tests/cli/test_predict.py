"""kvision predict: pictures, a COCO json and videos, with a model of fixed answers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from kvision.cli import predict

BOX = (8.0, 16.0, 24.0, 32.0)  # in the 64 x 64 input


def answer(images: np.ndarray) -> dict[str, np.ndarray]:
    """Find one "b" in each image, and one "a" that scores too little."""
    shape = (len(images), 2)
    return {
        "boxes": np.broadcast_to(np.float32([BOX, BOX]), (*shape, 4)),
        "scores": np.broadcast_to(np.float32([0.9, 0.2]), shape),
        "labels": np.broadcast_to(np.int32([1, 0]), shape),
        "masks": np.ones((*shape, 28, 28), np.float32),
    }


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = SimpleNamespace(
        class_names=["a", "b"],
        image_size=(64, 64),
        resize="pad",
        num_channels=3,
        predict_on_batch=answer,
    )
    monkeypatch.setattr(predict, "load_model", lambda _: detector)


def run(images: list[str], output: Path, **options: Any) -> dict[str, Any]:
    settings = {"score_threshold": 0.5, "batch_size": 2, "on_error": "raise"}
    return predict.run(Path("m"), images, output=output, **(settings | options))


def write_photo(path: Path, size: tuple[int, int] = (128, 128)) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, "navy").save(path)
    return path


def test_photos_are_drawn_and_listed_as_coco(tmp_path: Path) -> None:
    photos = [write_photo(tmp_path / "one/a.png"), write_photo(tmp_path / "two/a.png")]
    result = run([str(photo) for photo in photos], tmp_path / "out")
    assert result["images"] == 2
    assert result["detections"] == 2
    names = [path.name for path in result["files"]]
    assert names == ["a_detections.png", "a_detections1.png", "detections.json"]
    assert all(path.exists() for path in result["files"])

    content = json.loads(result["files"][-1].read_text())
    assert [image["file_name"] for image in content["images"]] == list(map(str, photos))
    first = content["annotations"][0]
    # The photo is twice as large as the input; x, y, width, height.
    assert first["bbox"] == [16, 32, 32, 32]
    assert first["id"] == 1
    coco = COCO(str(result["files"][-1]))
    assert coco.loadCats(first["category_id"])[0]["name"] == "b"
    assert coco.annToMask(first).sum() == pytest.approx(32 * 32, rel=0.1)


def test_folder_and_threshold(tmp_path: Path) -> None:
    write_photo(tmp_path / "photos/a.png")
    write_photo(tmp_path / "photos/b.jpg")
    result = run([str(tmp_path / "photos")], tmp_path / "out", score_threshold=0.1)
    assert (result["images"], result["detections"]) == (2, 4)


def test_broken_photo_is_named_or_skipped(tmp_path: Path) -> None:
    good = write_photo(tmp_path / "a.png")
    bad = tmp_path / "b.png"
    bad.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"b\.png"):
        run([str(good), str(bad)], tmp_path / "out")
    result = run([str(good), str(bad)], tmp_path / "out", on_error="skip")
    assert result["images"] == 1


def test_video_is_drawn_frame_by_frame(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    source = tmp_path / "clip.mp4"
    with av.open(str(source), "w") as video:
        stream = video.add_stream("mpeg4", rate=10, width=64, height=64)
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode())

    result = run([str(source)], tmp_path / "out")
    assert result["images"] == 5
    assert result["detections"] == 5
    (path,) = result["files"]
    assert path.name == "clip_detections.mp4"
    with av.open(str(path)) as video:
        drawn = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert video.streams.video[0].average_rate == 10
    assert len(drawn) == 5
    assert drawn[0].max() > 100
