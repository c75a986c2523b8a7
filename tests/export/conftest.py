"""One small detector and its exported forms for all tests of export."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kvision.export import Parity, saved_model, tflite
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
