"""One small detector and its exported forms for all tests of export."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kvision.export import Parity, saved_model, tflite
from kvision.export.flatbuffer import read, write
from kvision.export.parity import Run, runner
from tests.export.detector import small_detector, textured_images


@pytest.fixture(scope="session")
def detector() -> keras.Model:
    return small_detector()


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return textured_images(8)


@pytest.fixture(scope="session")
def saved(
    detector: keras.Model, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Parity:
    path = tmp_path_factory.mktemp("saved_models") / "shapes/1"
    return saved_model(detector, path, images=images)


@pytest.fixture(scope="session")
def lite(
    detector: keras.Model, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Parity:
    path: Path = tmp_path_factory.mktemp("tflite") / "shapes.tflite"
    return tflite(detector, path, images=images)


@pytest.fixture(scope="session")
def content(lite: Parity) -> bytes:
    """The float32 TFLite file of `detector` without its description."""
    return write(read(lite.path.read_bytes()))


@pytest.fixture(scope="session")
def reference(detector: keras.Model) -> Run:
    """The graph of `detector`, traced once."""
    return runner(detector)


@pytest.fixture(scope="session")
def exports(
    detector: keras.Model,
    images: np.ndarray,
    lite: Parity,
    content: bytes,
    reference: Run,
) -> dict[str, Parity]:
    """Every kind of TFLite file of `detector`, of one conversion."""
    found = {"float32": lite}
    module = sys.modules["kvision.export.tflite"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "convert", lambda _: content)
        patch.setattr(module, "runner", lambda _: reference)
        for kind in ("float16", "dynamic", "int8"):
            path = lite.path.with_name(f"shapes-{kind}.tflite")
            found[kind] = tflite(
                detector, path, quantize=kind, calibration=images, images=images
            )
    return found


@pytest.fixture
def converted(content: bytes, reference: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `tflite` take what is there of `detector`: tracing is what takes the time."""
    module = sys.modules["kvision.export.tflite"]
    monkeypatch.setattr(module, "convert", lambda _: content)
    monkeypatch.setattr(module, "runner", lambda _: reference)
