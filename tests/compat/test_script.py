"""An old script runs after its imports were changed."""

import csv
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from tests.compat.small import BLOCKS, write_coco

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


def logged(variables: dict, name: str) -> list[float]:
    """Return a loss of each epoch."""
    folder = Path(variables["model_path"]).parent
    with open(folder / "log.csv") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


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
    assert len(logged(variables, "loss")) == 2
    assert np.isfinite(logged(variables, "loss")).all()


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
    """In a graph: 60 steps for the heads, 60 for all, with normalisations trained."""
    variants = importlib.import_module("kvision.models.resnet").VARIANTS
    monkeypatch.setitem(variants, "resnet50", BLOCKS)
    write_coco(tmp_path / "mask_rcnn_coco.h5")
    settings = "STEPS_PER_EPOCH = 60\n    LEARNING_RATE = 0.02\n    TRAIN_BN = None"
    sizes = SMALL | {
        "STEPS_PER_EPOCH = 100": settings,
        "load_shapes(500,": "load_shapes(100,",
    }
    variables = run(tmp_path, sizes, monkeypatch)
    check(variables)
    for name, share in {"loss": 0.8, "class_loss": 0.9, "val_loss": 1.0}.items():
        first, second = logged(variables, name)
        assert second < share * first, name
