"""Presets: what the table says, and models with weights from a local server."""

import hashlib
import json
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kvision
from kvision.export.classifier import Classifier
from kvision.export.description import describe
from kvision.models.presets import PRESETS, Preset, preset_of
from kvision.weights import CheckpointError, timm, write_safetensors
from kvision.weights.coco_names import COCO_NAMES
from kvision.weights.fetching import FetchError, HubFile
from tests.parity.compare import golden as torchvision_golden
from tests.parity.compare import section
from tests.parity.detector import state_dict_shapes
from tests.parity.names import hash_of
from tests.weights.file_server import FileServer
from tests.weights.timm_file import tensors_of, write

NAME = "deit_ti16_distilled_imagenet1k"
DETECTOR = "mask_rcnn_resnet50_coco"
GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "presets.json"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLASSIFIERS = [one for one in PRESETS.values() if one.classes == "ImageNet-1k"]
DETECTORS = [one for one in PRESETS.values() if one.classes == "COCO"]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """What timm and torchvision say, by `record_presets.py`."""
    return json.loads(GOLDEN.read_text())


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


def with_id(presets: list[Preset]) -> Any:
    return pytest.mark.parametrize("preset", presets, ids=[one.name for one in presets])


@with_id(CLASSIFIERS)
def test_is_what_timm_says(preset: Preset, recorded: dict[str, Any]) -> None:
    assert isinstance(preset.origin, HubFile)
    assert preset.sha256 is None  # the hub says it with the file
    theirs = recorded["timm"][preset.origin.repo.removeprefix("timm/")]
    mean, std = (
        np.broadcast_to(values, 3) / 255
        for values in preset.preprocessing["normalization"]
    )
    np.testing.assert_allclose(mean, theirs["mean"])
    np.testing.assert_allclose(std, theirs["std"])
    assert preset.preprocessing["resize"] == {"center": "crop"}[theirs["crop_mode"]]
    assert (
        preset.origin.repo,
        preset.licence.lower(),
        preset.parameters,
        list(preset.arguments["image_size"]),
        preset.preprocessing["crop_fraction"],
        preset.preprocessing["interpolation"],
    ) == (
        theirs["repository"],
        theirs["licence"],
        theirs["parameters"],
        theirs["image_size"],
        theirs["crop_fraction"],
        theirs["interpolation"],
    )


@with_id(DETECTORS)
def test_is_what_torchvision_says(preset: Preset, recorded: dict[str, Any]) -> None:
    theirs = recorded["torchvision"][preset.origin]
    assert str(preset.origin).endswith(f"-{preset.sha256}.pth")
    assert len(preset.sha256 or "") == 8
    assert preset.parameters == theirs["parameters"]
    figures = {
        f"{of.removesuffix('_map')} AP": value
        for of, value in theirs["published"]["COCO-val2017"].items()
    }
    ours = {m.name.removeprefix("COCO val2017 "): m.value for m in preset.published}
    assert ours == figures
    names = {number: name for number, name in enumerate(theirs["classes"]) if number}
    assert {k: name for k, name in names.items() if name != "N/A"} == COCO_NAMES


@with_id(list(PRESETS.values()))
def test_row(preset: Preset) -> None:
    assert callable(getattr(kvision.models, preset.builder))
    assert preset.published
    assert all(20 < one.value < 90 and one.source for one in preset.published)
    assert preset.measured == ()  # nobody has
    assert json.dumps(preset)


def test_classes_are_in_the_order_of_the_checkpoints(recorded: dict[str, Any]) -> None:
    names = Classifier(kvision.create(NAME, weights=False)).class_names
    assert names == recorded["imagenet"]
    assert len(set(names)) == 1000


def names_and_shapes(preset: Preset) -> dict[str, tuple[int, ...]]:
    """List the tensors that a preset asks of its file, however large; fills none."""

    def listed() -> dict[str, tuple[int, ...]]:
        with keras.StatelessScope(initialize_variables=False):
            model = kvision.create(preset.name, weights=False)
            return {
                name: shape
                for place in timm.places(model, {})
                for name, shape in zip(place.names, place.shapes, strict=True)
            }

    with ThreadPoolExecutor(max_workers=1) as thread:  # as `costs_of` says
        return thread.submit(listed).result()


SOME = ("vit_r_ti16_augreg_imagenet1k_384", "deit3_s16_imagenet22k_1k", NAME)
SOME += (
    "twins_svt_s_imagenet1k",
    "twins_pcpvt_s_imagenet1k",
    "vit_l16_augreg_imagenet1k",
)


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(
            one, id=one.name, marks=() if one.name in SOME else pytest.mark.slow
        )
        for one in CLASSIFIERS
    ],
)
def test_asks_for_the_tensors_of_its_file(
    preset: Preset, recorded: dict[str, Any]
) -> None:
    """All of timm's, by name and shape; so their number is that of the parameters."""
    assert isinstance(preset.origin, HubFile)
    theirs = recorded["timm"][preset.origin.repo.removeprefix("timm/")]
    shapes = names_and_shapes(preset)
    assert sum(map(math.prod, shapes.values())) == preset.parameters
    assert hash_of(shapes) == theirs["tensors"]


@with_id([DETECTORS[0], DETECTORS[3]])
def test_detectors_are_built(preset: Preset) -> None:
    model = kvision.create(preset.name, weights=False, image_size=(64, 64))
    assert model.class_names == list(COCO_NAMES.values())
    config = model.get_config()
    assert config["resize"] == "pad"
    normalization = model.get_layer("normalization").get_config()
    np.testing.assert_allclose(normalization["mean"], (123.675, 116.28, 103.53))
    np.testing.assert_allclose(normalization["std"], (58.395, 57.12, 57.375))
    exported = describe(model)
    assert (exported["resize"], exported["class_names"]) == ("pad", model.class_names)
    # No part of random weights should stay as it is.
    assert (config["frozen_stages"], config["freeze_batch_norm"]) == (0, False)
    counted = sum(
        w.shape.num_elements() for w in model.weights if "moving" not in w.path
    )
    # Of each of 10 category ids that nobody uses and of the background: 4 deltas.
    expected = preset.parameters - 10 * (1024 + 1) - 11 * 4 * (1024 + 1)
    if "v2" not in preset.name:
        expected += 53120  # frozen there: scales and shifts of normalisations
    if preset.builder == "mask_rcnn":
        # Their masks; and each enlarged pixel has a bias of its own.
        expected += 3 * 256 - 11 * (256 + 1)
    assert counted == expected


def serve_weights(server: FileServer, folder: Path) -> Path:
    """Serve seeded weights as the hub serves timm's."""
    path = write(folder, tensors_of(kvision.create(NAME, weights=False)))
    content = path.read_bytes()
    origin = PRESETS[NAME].origin
    assert isinstance(origin, HubFile)
    for revision in ("main", COMMIT):
        server.file(
            f"/{origin.repo}/resolve/{revision}/model.safetensors",
            content,
            ETag=f'"{hashlib.sha256(content).hexdigest()}"',
            X_Repo_Commit=COMMIT,
        )
    return path


def test_weights_are_fetched_and_loaded(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("huggingface_hub")
    path = serve_weights(server, tmp_path)
    model = kvision.create(NAME, image_size=(32, 32))
    expected = kvision.models.deit("Ti/16", distilled=True, image_size=(32, 32))
    kvision.weights.load(expected, path)
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
    np.testing.assert_array_equal(
        model.predict(images, verbose=0), expected.predict(images, verbose=0)
    )
    assert Classifier(model).class_names[:2] == ["tench", "goldfish"]
    assert caplog.messages == []
    # Others than the preset's, from the same file and without the network.
    asked = len(server.asked)
    other = kvision.create(NAME, num_classes=3, image_size=(32, 48))
    assert other.output_shape == (None, 3)
    assert Classifier(other).class_names == ["0", "1", "2"]
    assert caplog.record_tuples == [
        (
            "kvision.models",
            logging.WARNING,
            f"{NAME}: all weights taken but those of other classes, which begin anew: "
            "head/kernel, head/bias, head_dist/kernel, head_dist/bias",
        )
    ]
    synsets = [f"n{number}" for number in range(1000)]
    own = kvision.create(NAME, class_names=synsets, image_size=(32, 32))
    assert Classifier(own).class_names == synsets
    kernels = (one.get_layer("head").kernel for one in (own, model))
    np.testing.assert_array_equal(*map(np.asarray, kernels))
    assert len(server.asked) == asked


def test_weights_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, tensors_of(kvision.create(NAME, weights=False)))
    model = kvision.create(NAME, weights=str(path), image_size=(32, 32))
    assert Classifier(model).class_names[0] == "tench"
    # Without heads there are no names, and the file's heads are left out.
    size = (32, 32)
    headless = kvision.create(NAME, weights=path, num_classes=0, image_size=size)
    assert headless.output_shape == (None, 192)
    features = kvision.create(NAME, weights=path, features=True, image_size=size)
    assert features.output["grid"].shape == (None, 2, 2, 192)
    np.testing.assert_array_equal(headless.get_weights()[0], model.get_weights()[0])
    with pytest.raises(CheckpointError, match="of another shape"):
        kvision.create(NAME, weights=path, variant="S/16", image_size=(32, 32))


def test_weights_of_a_detector(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file as torchvision's: 91 outputs, of which COCO uses 81."""
    names = section(torchvision_golden("names"), "maskrcnn_resnet50_fpn/state_dict")
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.uniform(0.01, 0.02, shape).astype(np.float32)
        for name, shape in state_dict_shapes(names).items()
    }
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, tensors)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    url = server.file(f"/maskrcnn-{digest[:8]}.pth", path.read_bytes())
    preset = PRESETS[DETECTOR]._replace(origin=url, sha256=digest[:8])
    monkeypatch.setitem(PRESETS, DETECTOR, preset)
    model = kvision.create(DETECTOR, image_size=(64, 64))
    bias = np.asarray(model.get_layer("box_head").classes.bias)
    theirs = tensors["roi_heads.box_predictor.cls_score.bias"]
    np.testing.assert_array_equal(bias, theirs[[*COCO_NAMES, 0]])
    assert model.get_config()["frozen_stages"] == 2
    monkeypatch.setitem(PRESETS, DETECTOR, preset._replace(sha256="bf2d0c1e"))
    with pytest.raises(FetchError, match="its publisher says bf2d0c1e"):
        kvision.create(DETECTOR)


def test_no_model_without_its_weights(server: FileServer) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(
        FetchError,
        match=rf"No weights of {NAME}: timm/deit_tiny_distilled.*404.*weights='FILE'",
    ):
        kvision.create(NAME)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mask_rcnn_resnet_coco", "'mask_rcnn_resnet50_coco', .*"),
        ("vit_b16", "'vit_b16_augreg_imagenet1k', 'vit_b16_augreg_imagenet1k_384'"),
        ("timm/vit_base_patch16_224", "'vit_b16_augreg_imagenet1k'"),
        ("maskrcnn_resnet50_fpn_v2", "'mask_rcnn_resnet50_v2_coco'"),
        ("deit3", "'deit3_s16_imagenet1k', .*, ..."),
    ],
)
def test_unknown_name(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"Did you mean {meant}\? `kvision models`"):
        kvision.create(name)


def test_unknown_name_that_is_like_none() -> None:
    with pytest.raises(ValueError, match=r"No preset 'yolo'. `kvision models`"):
        preset_of("yolo")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 384}, r"must be \(height, width\) in pixels. Received: 384"),
        ({"image_size": (384, 0)}, r"Received: \(384, 0\)"),
        ({"weights": "no.safetensors"}, r"a file that exists. Received: 'no.safet"),
        ({"weights": 1}, "True for the published ones"),
        ({"weights": False, "num_classes": 3, "class_names": ["a"]}, "3 different"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    """Refused before anything is downloaded."""
    with pytest.raises(ValueError, match=message):
        kvision.create(NAME, **arguments)


def test_detectors_take_names() -> None:
    with pytest.raises(ValueError, match=r"takes class_names=\[...\], not num_classes"):
        kvision.create(DETECTOR, num_classes=5)


def test_unknown_argument() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        kvision.create(NAME, weights=False, foo=1)


def test_names_travel_with_the_model(tmp_path: Path) -> None:
    model = kvision.create(NAME, weights=None, image_size=(32, 32))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert Classifier(loaded).class_names[1] == "goldfish"
