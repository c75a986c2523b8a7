"""Whose names a checkpoint has: one layout recognises it, so no order matters."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kvision import models
from kvision.weights import kvision, loading
from tests.parity import (
    detectron2_seeded,
    numpy_detectron2,
    numpy_matterport,
    test_google,
)
from tests.parity.compare import golden, section
from tests.parity.detector import state_dict_shapes
from tests.parity.google_seeded import stacked
from tests.parity.test_dinov2 import own_file
from tests.parity.test_matterport import name_in_the_file
from tests.weights.timm_file import small_dynamic_vit, small_vit, tensors_of

GOLDEN = Path(__file__).resolve().parent.parent / "parity" / "golden"
Names = set[str]


def recorded(path: Path) -> Names:
    with np.load(path) as file:
        return {line.split(" ")[0] for line in str(file["state_dict"]).splitlines()}


def torchvision(name: str) -> Names:
    return set(state_dict_shapes(section(golden("names"), f"{name}/state_dict")))


def google(prefix: str) -> Names:
    weights = test_google.pooling_file()
    return {f"{prefix}{name}" for name in (weights if prefix else stacked(weights))}


def matterport(depth: int) -> Names:
    blocks = numpy_matterport.BLOCKS[depth]
    return set(map(name_in_the_file, numpy_matterport.shapes(blocks, 80)))


def of_a_run() -> Names:
    paths = kvision.variables(small_vit())
    return {f"model/{i:05} {path}" for i, path in enumerate(paths)} | {"optimizer/0 a"}


FILES: dict[str, tuple[str, Callable[[], Names]]] = {
    **{
        path.stem: (source, lambda path=path: recorded(path))
        for source in ("timm", "hugging_face")
        for path in sorted(GOLDEN.glob(f"{source}_*.npz"))
    },
    **{
        name: ("torchvision", lambda name=name: torchvision(name))
        for name in ("resnet50", "fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2")
    },
    **{
        f"google {prefix}": ("google", lambda prefix=prefix: google(prefix))
        for prefix in ("", "opt/target/", "params/", "params/img/")
    },
    "google old": ("google", lambda: set(test_google.old_file())),
    "google hybrid": (
        "google",
        lambda: set(test_google.hybrid_file((2,), (64, 2, 2, 64), 1, 4)),
    ),
    "dynamic_vit": ("timm", lambda: set(tensors_of(small_dynamic_vit()))),
    "dinov2": ("dinov2", lambda: set(own_file("dinov2"))),
    "dinov2 registers": ("dinov2", lambda: set(own_file("registers"))),
    "detectron2": (
        "detectron2",
        lambda: set(detectron2_seeded.shapes(numpy_detectron2.BLOCKS[50], 80)),
    ),
    "matterport": ("matterport", lambda: matterport(101)),
    "kvision vit": ("kvision", lambda: set(kvision.variables(small_vit()))),
    "kvision resnet": (
        "kvision",
        lambda: set(kvision.variables(models.resnet("resnet50"))),
    ),
    "kvision mask_rcnn": (
        "kvision",
        lambda: set(
            kvision.variables(models.mask_rcnn(class_names=["a"], image_size=(64, 64)))
        ),
    ),
    "training run": ("kvision", of_a_run),
}


@pytest.mark.parametrize("name", FILES)
def test_one_layout_recognises_it(name: str) -> None:
    source, make = FILES[name]
    names = make()
    assert [
        layout
        for layout, module in loading._LAYOUTS.items()
        if module.recognises(names)
    ] == [source]


def test_files_of_keras_are_of_none() -> None:
    """Of h5 files of before Keras 3, only matterport's is read."""
    names = {"Conv1/Conv1/kernel", "bn_Conv1/bn_Conv1/gamma", "model/bn/bn/gamma"}
    assert not any(module.recognises(names) for module in loading._LAYOUTS.values())
