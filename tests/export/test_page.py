"""The Python of docs/deploying.md finds objects in exported models."""

from pathlib import Path

import pytest
from PIL import Image

from kvision.export import Parity, tflite
from tests.export.classifier import CLASS_NAMES, small_vit
from tests.export.detector import textured_images
from tests.test_pages import REPOSITORY, python_blocks, run_as_script

BLOCKS = python_blocks(REPOSITORY / "docs/deploying.md")


@pytest.fixture
def folder(saved: Parity, lite: Parity, tmp_path: Path) -> Path:
    """What the page assumes: photos and exported models."""
    (tmp_path / "saved_models/nuclei").mkdir(parents=True)
    (tmp_path / "saved_models/nuclei/1").symlink_to(saved.path)
    (tmp_path / "nuclei.tflite").symlink_to(lite.path)
    for name in ("a.jpg", "photo.jpg"):
        Image.fromarray(textured_images(1, (90, 150))[0]).save(tmp_path / name)
    return tmp_path


def test_saved_model(folder: Path) -> None:
    code, _, _ = BLOCKS
    boxes, scores = run_as_script(code, folder).split("tf.Tensor(")[1:]
    assert "shape=(20, 4)" in boxes
    assert "shape=(20,)" in scores


def test_edge_runtime(folder: Path) -> None:
    _, code, _ = BLOCKS
    # Heads of chance give few scores above the default of 0.5.
    assert 'detect("photo.jpg")' in code
    code = code.replace('detect("photo.jpg")', 'detect("photo.jpg", 0.06)')
    printed = run_as_script(code + "print(masks.shape[1:])", folder)
    assert "'triangle'" in printed
    assert printed.endswith("(90, 150)\n")


def test_classifier_on_a_device(folder: Path) -> None:
    _, _, code = BLOCKS
    tflite(small_vit(), folder / "flowers.tflite")
    printed = run_as_script(code, folder)
    assert all(repr(name) in printed for name in CLASS_NAMES)
