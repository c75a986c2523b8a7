"""An old script runs after its imports were changed."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from tests.compat.small import write_coco
from tests.parity import numpy_matterport
from tests.parity.test_matterport import write

SCRIPT = Path(__file__).with_name("train_shapes.py")
# As docs/from_matterport.md says.
IMPORTS = {
    "from mrcnn import utils, visualize\n": (
        "from kvision.compat import matterport as utils\n"
        "from kvision.compat.matterport import visualize\n"
    ),
    "from mrcnn.config import": "from kvision.compat.matterport.config import",
    "import mrcnn.model as": "import kvision.compat.matterport.model as",
    "from mrcnn.model import": "from kvision.compat.matterport.model import",
}


def replaced(code: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    return code


def run(folder: Path, sizes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict:
    """Run the script in a folder; return its variables."""
    monkeypatch.chdir(folder)
    code = replaced(replaced(SCRIPT.read_text(), IMPORTS), sizes)
    assert "mrcnn." not in re.sub(r"(kvision|mask_rcnn)\S*", "", code)
    variables: dict = {"__name__": "__main__"}
    exec(compile(code, str(SCRIPT), "exec"), variables)
    return variables


def losses(variables: dict) -> list[float]:
    folder = Path(variables["model_path"]).parent
    with open(folder / "log.csv") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def check(variables: dict) -> None:
    r, image = variables["r"], variables["image"]
    number = len(r["scores"])
    assert image.shape == tuple(variables["config"].IMAGE_SHAPE)
    assert r["rois"].shape == (number, 4)
    assert r["masks"].shape == (*image.shape[:2], number)
    assert set(r["class_ids"]) <= {1, 2, 3}
    assert len(variables["APs"]) == 10
    assert all(0 <= ap <= 1 for ap in variables["APs"])
    inference = variables["model"]
    assert inference.mode == "inference"
    assert inference.epoch == 2
    assert len(losses(variables)) == 2
    assert np.isfinite(losses(variables)).all()


SMALL = {
    "IMAGES_PER_GPU = 8": 'IMAGES_PER_GPU = 2\n    BACKBONE = "resnet50"',
    "IMAGE_MIN_DIM = 128": "IMAGE_MIN_DIM = 64",
    "IMAGE_MAX_DIM = 128": "IMAGE_MAX_DIM = 64",
    "TRAIN_ROIS_PER_IMAGE = 32": "TRAIN_ROIS_PER_IMAGE = 16",
    "STEPS_PER_EPOCH = 100": "STEPS_PER_EPOCH = 1\n    POST_NMS_ROIS_TRAINING = 50",
    "VALIDATION_STEPS = 5": "VALIDATION_STEPS = 1\n    POST_NMS_ROIS_INFERENCE = 50",
    "load_shapes(500,": "load_shapes(4,",
    "load_shapes(50,": "load_shapes(10,",
}


def test_script(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path / "mask_rcnn_coco.h5")
    check(run(tmp_path, SMALL, monkeypatch))


@pytest.mark.slow
def test_script_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole network in a graph; 40 steps for the heads, 20 for all."""
    shapes = numpy_matterport.shapes(numpy_matterport.BLOCKS[50], 80)
    tensors = {n: numpy_matterport.weights_for(n, s) for n, s in shapes.items()}
    write(tmp_path / "mask_rcnn_coco.h5", tensors)
    sizes = SMALL | {
        "STEPS_PER_EPOCH = 100": "STEPS_PER_EPOCH = 40",
        "load_shapes(500,": "load_shapes(40,",
    }
    variables = run(tmp_path, sizes, monkeypatch)
    check(variables)
    first, second = losses(variables)
    assert second < 0.8 * first
