"""Presets: what the table says, and models with weights from a local server."""

import functools
import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import kvision
from kvision.models.costs import costs_of
from kvision.models.presets import PRESETS, Preset
from kvision.models.published import PUBLISHED
from kvision.weights.fetching import FetchError, HubFile
from tests.weights.file_server import FileServer
from tests.weights.timm_file import tensors_of, write

NAME = "deit_ti16_distilled_imagenet1k"


def builds(preset: Preset) -> keras.Model:
    return getattr(kvision.models, preset.builder)(
        **preset.arguments, **preset.preprocessing
    )


def test_names_of_the_issue() -> None:
    sizes = ("ti16", "s16", "b16", "l16", "b32")
    assert {
        *(f"vit_{size}_augreg_imagenet1k{side}" for size in sizes for side in SIDES),
        *(f"deit_{size}{kind}" for size in sizes[:3] for kind in DEIT),
        *(f"deit3_{size}_imagenet1k" for size in ("s16", "b16", "l16")),
        *(f"twins_svt_{size}_imagenet1k" for size in "sbl"),
        *(f"{kind}_rcnn_resnet50_coco" for kind in ("faster", "mask")),
        *(f"{kind}_rcnn_resnet50_v2_coco" for kind in ("faster", "mask")),
        "vit_b16_augreg_imagenet1k",  # the example of the design
    } <= set(PRESETS)


SIDES = ("", "_384")
DEIT = ("_imagenet1k", "_distilled_imagenet1k")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_row(preset: Preset) -> None:
    if isinstance(preset.origin, HubFile):
        assert preset.origin.repo.startswith("timm/")
        assert preset.sha256 is None
    else:
        assert preset.origin.startswith("https://")
        assert preset.origin.endswith(f"-{preset.sha256}.pth")
        assert len(preset.sha256 or "") == 8
    assert preset.licence in ("Apache-2.0", "BSD-3-Clause")
    assert all(20 < metric.value < 90 and metric.published for metric in preset.metrics)
    assert preset.metrics
    assert callable(getattr(kvision.models, preset.builder))
    assert json.dumps(preset)


def test_parameters_are_those_of_the_list_of_published_models() -> None:
    keys = ("variant", "image_size", "distilled")
    counted = {
        (one.builder, one.variant, one.image_size, bool(one.arguments)): one.costs
        for one in PUBLISHED
    }
    compared = 0
    for preset in PRESETS.values():
        variant, size, distilled = (preset.arguments.get(key) for key in keys)
        costs = counted.get((preset.builder, variant, size, bool(distilled)))
        if costs is not None:
            assert preset.parameters == costs.parameters, preset.name
            compared += 1
    assert compared >= 28


@pytest.mark.parametrize(
    "name",
    [
        "vit_ti16_augreg_imagenet1k_384",
        "vit_b32_augreg_imagenet1k_384",
    ],
)
def test_parameters_of_what_is_built(name: str) -> None:
    preset = PRESETS[name]
    assert costs_of(functools.partial(builds, preset)).parameters == preset.parameters


@pytest.mark.parametrize(
    "name", ["faster_rcnn_resnet50_coco", "mask_rcnn_resnet50_v2_coco"]
)
def test_detectors_are_built(name: str) -> None:
    model = kvision.create(name, weights=False, image_size=(64, 64))
    names = model.get_config()["class_names"]
    assert len(set(names)) == 90
    # Category ids of COCO.
    numbers = {"person": 1, "stop sign": 13, "backpack": 27, "toothbrush": 90}
    assert {name: names.index(name) + 1 for name in numbers} == numbers
    assert sum(name.startswith("unused ") for name in names) == 10


def serve_weights(server: FileServer, folder: Path) -> Path:
    """Serve seeded weights as the hub serves timm's."""
    path = write(folder, tensors_of(kvision.create(NAME, weights=False)))
    content = path.read_bytes()
    commit = "0123456789abcdef0123456789abcdef01234567"
    origin = PRESETS[NAME].origin
    assert isinstance(origin, HubFile)
    for revision in ("main", commit):
        server.file(
            f"/{origin.repo}/resolve/{revision}/model.safetensors",
            content,
            ETag=f'"{hashlib.sha256(content).hexdigest()}"',
            X_Repo_Commit=commit,
        )
    return path


def test_weights_are_fetched_and_loaded(server: FileServer, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    path = serve_weights(server, tmp_path)
    model = kvision.create(NAME, image_size=(32, 32))
    expected = kvision.models.deit("Ti/16", distilled=True, image_size=(32, 32))
    kvision.weights.load(expected, path)
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
    np.testing.assert_array_equal(
        model.predict(images, verbose=0), expected.predict(images, verbose=0)
    )
    preprocessing = model.get_layer("preprocessing").get_config()
    assert preprocessing["crop_fraction"] == 0.9
    assert preprocessing["interpolation"] == "bicubic"
    np.testing.assert_allclose(preprocessing["mean"], (123.675, 116.28, 103.53))
    # Others than the preset's, from the same file and without the network.
    asked = len(server.asked)
    other = kvision.create(NAME, num_classes=3, image_size=(32, 48))
    assert other.output_shape == (None, 3)
    assert kvision.create(NAME, num_classes=0).output_shape == (None, 192)
    assert len(server.asked) == asked
    own = kvision.create(NAME, weights=path)
    np.testing.assert_array_equal(own.get_weights()[0], model.get_weights()[0])


def test_no_model_without_its_weights(server: FileServer) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(FetchError, match=r"deit_tiny_distilled.*cannot be downloaded"):
        kvision.create(NAME)


def test_wrong_weights_of_torchvision(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = PRESETS["mask_rcnn_resnet50_coco"]
    url = server.file("/maskrcnn-bf2d0c1e.pth", b"something else")
    monkeypatch.setitem(PRESETS, preset.name, preset._replace(origin=url))
    with pytest.raises(FetchError, match="its publisher says bf2d0c1e"):
        kvision.create(preset.name)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="Did you mean 'mask_rcnn_resnet50_coco'"):
        kvision.create("mask_rcnn_resnet_coco")
