"""The edge runtime alone, without TensorFlow, against `kvision.detect`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import kvision
import kvision_edge
from kvision.data.images import resize_image
from kvision.evaluation.masks import paste
from kvision.export import tflite
from tests.export.detector import CLASS_NAMES, small_detector, textured_images

Found = dict[str, np.ndarray]

# Random heads give many scores below the default of 0.5.
THRESHOLD = 0.06

FILES = ["large.jpg", "turned.jpg", "grey.png", "palette.png", "deep.png"]
ARRAYS = ["array.npy", "grey.npy", "deep.npy"]

WITHOUT_KVISION = """
import sys
for name in ("tensorflow", "keras", "kvision", "tf_keras", "jax", "torch"):
    sys.modules[name] = None  # importing it raises
import numpy as np
from kvision_edge import Detector

detector = Detector(sys.argv[1], num_threads=1)
for name in sys.argv[3:]:
    photo = np.load(name) if name.endswith(".npy") else name
    found = detector.detect(photo, float(sys.argv[2]))
    np.savez(name + ".npz", boxes=found.boxes, scores=found.scores,
             labels=found.labels, names=found.names, masks=found.masks,
             image_size=found.image_size)
"""


@pytest.fixture(scope="module")
def detector() -> keras.Model:
    return small_detector()


@pytest.fixture(scope="module")
def path(detector: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("edge") / "shapes.tflite"
    return tflite(detector, path, images=textured_images(4)).path


def write_photos(folder: Path) -> dict[str, Path]:
    """Photos of several sizes, none that of the model (64, 96)."""
    large = Image.fromarray(textured_images(1, (32, 40))[0]).resize((240, 192))
    small = textured_images(1, (40, 56))[0]
    settings = Image.Exif()
    settings[0x0112] = 6  # to be turned clockwise by the reader
    paths = {name: folder / name for name in FILES + ARRAYS}
    large.save(paths["large.jpg"])
    large.save(paths["turned.jpg"], exif=settings)
    large.convert("L").save(paths["grey.png"])
    large.convert("P").save(paths["palette.png"])
    deep = np.asarray(large.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(paths["deep.png"])
    np.save(paths["array.npy"], small)
    np.save(paths["grey.npy"], small[..., 0])
    np.save(paths["deep.npy"], small.astype(np.uint16) * 257)
    return paths


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def alone(path: Path, photos: dict[str, Path]) -> dict[str, Found]:
    """What one process without TensorFlow, Keras and kvision finds in all photos."""
    folder = path.parent / "device"
    folder.mkdir()
    shutil.copy(kvision_edge.__file__, folder)
    arguments = [str(path), str(THRESHOLD), *map(str, photos.values())]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KVISION, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: dict(np.load(f"{photo}.npz")) for name, photo in photos.items()}


@pytest.mark.parametrize("name", FILES + ARRAYS)
def test_equal_to_detect(
    alone: dict[str, Found],
    detector: keras.Model,
    photos: dict[str, Path],
    name: str,
) -> None:
    photo = photos[name]
    image = np.load(photo) if photo.suffix == ".npy" else photo
    (expected,) = kvision.detect(detector, image, score_threshold=THRESHOLD)
    found = alone[name]
    assert len(expected) >= 5
    np.testing.assert_array_equal(found["image_size"], expected.image_size)
    np.testing.assert_array_equal(found["labels"], expected.labels)
    assert found["names"].tolist() == expected.names
    np.testing.assert_allclose(found["boxes"], expected.boxes, atol=0.01)
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-4)
    # One value in a resized photo may be rounded the other way.
    assert (found["masks"] != expected.masks).sum(axis=(1, 2)).max() <= 2
    assert found["masks"].shape == (len(expected), *expected.image_size)


def test_photos_are_found_in_their_own_pixels(alone: dict[str, Found]) -> None:
    # The same picture lying and standing: widths and heights are exchanged.
    np.testing.assert_array_equal(alone["large.jpg"]["image_size"], [192, 240])
    np.testing.assert_array_equal(alone["turned.jpg"]["image_size"], [240, 192])
    assert alone["large.jpg"]["boxes"][:, 2].max() > 192
    assert alone["turned.jpg"]["boxes"][:, 2].max() <= 192
    assert alone["large.jpg"]["masks"].any(axis=(1, 2)).sum() >= 5


@pytest.fixture(scope="module")
def edge(path: Path) -> kvision_edge.Detector:
    return kvision_edge.Detector(path)


def test_other_numbers_and_alpha_change_nothing(edge: kvision_edge.Detector) -> None:
    image = textured_images(1, (40, 56))[0]
    expected = edge.detect(image, THRESHOLD)
    assert len(expected) >= 5
    alpha = np.dstack([image, np.zeros((40, 56), np.uint8)])
    for same in (image + np.float32(0.3), image.astype(np.int64), alpha):
        found = edge.detect(np.minimum(same, 255), THRESHOLD)
        np.testing.assert_array_equal(found.boxes, expected.boxes)


def test_threshold(edge: kvision_edge.Detector) -> None:
    image = textured_images(1)[0]
    every, some = edge.detect(image, 0.0), edge.detect(image, 0.3)
    assert 0 < len(some) < len(every)
    assert some.scores.min() >= 0.3
    np.testing.assert_array_equal(some.boxes, every.boxes[every.scores >= 0.3])
    none = edge.detect(image, 1.0)
    assert none.masks.shape == (0, 64, 96)
    assert none.to_dict() == {"image_size": [64, 96], "detections": []}


def test_dict_is_json_and_its_masks_are_coco(edge: kvision_edge.Detector) -> None:
    found = edge.detect(textured_images(1, (90, 150))[0], THRESHOLD)
    values = json.loads(json.dumps(found.to_dict()))
    assert values["image_size"] == [90, 150]
    assert len(values["detections"]) == len(found) >= 5
    assert found.masks.any(axis=(1, 2)).sum() >= 5
    for i, detection in enumerate(values["detections"]):
        assert detection["name"] == CLASS_NAMES[detection["label"]] == found.names[i]
        np.testing.assert_allclose(detection["box"], found.boxes[i])
        assert detection["score"] == pytest.approx(float(found.scores[i]))
        np.testing.assert_array_equal(
            decoded(detection["segmentation"]), found.masks[i]
        )


def decoded(runs: dict[str, Any]) -> np.ndarray:
    return coco_mask.decode(coco_mask.frPyObjects(runs, *runs["size"])).astype(bool)


@pytest.mark.parametrize("kind", ["empty", "full", "corner", "random"])
def test_run_lengths(kind: str) -> None:
    mask = np.zeros((5, 7), bool)
    if kind == "random":
        mask = np.random.default_rng(0).random((5, 7)) < 0.5
    mask[:] |= kind == "full"
    mask[0, 0] |= kind == "corner"
    runs = kvision_edge._run_lengths(mask)
    assert sum(runs["counts"]) == 35
    np.testing.assert_array_equal(decoded(runs), mask)


@pytest.mark.parametrize("resize", ["pad", "stretch"])
@pytest.mark.parametrize(
    "size", [(64, 96), (40, 96), (200, 120), (31, 17), (1, 300), (301, 1), (65, 97)]
)
def test_fit_is_the_rule_of_the_data_package(size: tuple, resize: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels, scales = kvision_edge.fit(image, (64, 96), resize)
    expected = resize_image(image, (64, 96), resize).numpy().astype(int)
    difference = np.abs(pixels - expected)
    # Sums in another order: a value near one half may be rounded the other way.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    is_image = expected.any(axis=-1)
    height, width = np.flatnonzero(is_image.any(1)), np.flatnonzero(is_image.any(0))
    np.testing.assert_allclose(
        scales, [(height[-1] + 1) / size[0], (width[-1] + 1) / size[1]], rtol=1e-6
    )


def test_paste_is_that_of_kvision() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((200, 28, 28), np.float32)
    centres, sides = rng.uniform(-5, 75, (200, 2)), rng.uniform(0.2, 60, (200, 2))
    boxes = np.hstack([centres - sides / 2, centres + sides / 2]).astype(np.float32)
    found = kvision_edge.paste(masks, boxes, (60, 70))
    expected = paste(masks, boxes, (60, 70))
    assert expected.any(axis=(1, 2)).sum() > 150
    # Of 60,000 pixels of objects a few lie on the threshold.
    assert (found != expected).sum() <= 3


def test_command_line(path: Path, photos: dict[str, Path]) -> None:
    chosen = [str(photos[name]) for name in ("large.jpg", "grey.png")]
    done = run_file(path, *chosen, "--score-threshold", str(THRESHOLD), "--threads=1")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"] for line in lines] == chosen
    edge = kvision_edge.Detector(path, num_threads=1)
    for line in lines:
        expected = edge.detect(line.pop("path"), THRESHOLD).to_dict()
        assert line == json.loads(json.dumps(expected))
        assert len(line["detections"]) >= 5


def test_command_line_tells_what_is_wrong(path: Path, tmp_path: Path) -> None:
    done = run_file(path, str(tmp_path / "missing.jpg"))
    assert done.returncode == 1
    assert "missing.jpg" in done.stderr
    assert "Traceback" not in done.stderr


def run_file(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, kvision_edge.__file__, *map(str, arguments)],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("drop", ["description", "everything"])
def test_a_file_that_is_not_ours(path: Path, tmp_path: Path, drop: str) -> None:
    other = tmp_path / "other.tflite"
    content = path.read_bytes()
    size = content.index(b"PK\x03\x04") if drop == "description" else 100
    other.write_bytes(content[:size])
    with pytest.raises(ValueError, match=r"other\.tflite .*kvision\.export\.tflite"):
        kvision_edge.Detector(other)


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    model = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(model)
    with pytest.raises(ValueError, match=r"model\.keras .*kvision\.export\.tflite"):
        kvision_edge.Detector(model)


def test_without_litert(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setitem(sys.modules, f"{name}.interpreter", None)
    with pytest.raises(ImportError, match="pip install ai-edge-litert"):
        kvision_edge.Detector(path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 2), np.uint8), r"\(H, W, 3\)\. Received shape \(8, 8, 2\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"shape \(1, 8, 8, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
        (np.full((8, 8, 3), 0.5), "multiply by 255"),
        (np.full((8, 8, 3), 256), r"0\.\.255\. Received: 256"),
        (np.full((8, 8, 3), -1), "Received: -1"),
        (np.full((8, 8, 3), np.nan), "Received: nan"),
        (np.zeros((8, 8, 3), bool), "dtype bool"),
    ],
)
def test_arrays_that_are_no_images(
    edge: kvision_edge.Detector, image: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        edge.detect(image)


def test_files_that_are_no_images(
    edge: kvision_edge.Detector, photos: dict[str, Path], tmp_path: Path
) -> None:
    content = photos["large.jpg"].read_bytes()
    broken = tmp_path / "broken.jpg"
    for damaged in (b"", b"no image", content[: len(content) // 2]):
        broken.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"broken\.jpg cannot be read"):
            edge.detect(broken)
    floats = tmp_path / "floats.tiff"
    Image.fromarray(np.zeros((8, 8), np.float32)).save(floats)
    with pytest.raises(ValueError, match=r"floats\.tiff .*mode is 'F'"):
        edge.detect(floats)
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg"):
        edge.detect(tmp_path / "missing.jpg")
