"""MODEL on the command line: what is loaded, and what is refused how."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kvision.cli.arguments import load_detector
from kvision.models import Detector, faster_rcnn


@pytest.fixture(scope="module")
def detector() -> Detector:
    return faster_rcnn(
        "mobilenet_v2",
        class_names=["a"],
        image_size=(64, 64),
        pyramid_channels=8,
        box_hidden_dim=8,
        rpn_post_nms_top_k=8,
        max_detections=4,
    )


@pytest.mark.parametrize("name", ["model.keras", "best.keras"])
def test_file_or_run_folder(name: str, detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / name)
    path = tmp_path if name == "best.keras" else tmp_path / name
    images = np.full((1, 64, 64, 3), 128, np.uint8)
    expected, got = detector(images), load_detector(path)(images)
    np.testing.assert_array_equal(got["boxes"], expected["boxes"])


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"model\.h5: expected a \.keras file"):
        load_detector(tmp_path / "model.h5")
    with pytest.raises(ValueError, match=r"it has no best\.keras or last\.keras"):
        load_detector(tmp_path)


def test_half_a_file_is_named_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(ValueError, match="holds a Sequential, not a detector"):
        load_detector(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"damaged or no Keras model: .*\(100 bytes\)"):
        load_detector(path)
