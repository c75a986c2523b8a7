"""Torchvision's checkpoints: names, also those of 2019, other classes, backbones."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import kvision
from kvision.models.rcnn_conventions import TORCHVISION_V2
from kvision.weights import CheckpointError, torchvision
from kvision.weights.coco_names import COCO_NAMES
from kvision.weights.places import Place
from tests.ops.modes import to_numpy
from tests.parity.compare import golden, section
from tests.parity.detector import state_dict_shapes

COCO_SLOTS = [f"slot {number}" for number in range(1, 91)]
DETECTORS = {
    "fasterrcnn_resnet50_fpn": (kvision.models.faster_rcnn, {}, 295 + 53),
    "fasterrcnn_resnet50_fpn_v2": (kvision.models.faster_rcnn, TORCHVISION_V2, 404),
    "maskrcnn_resnet50_fpn": (kvision.models.mask_rcnn, {}, 307 + 53),
    "maskrcnn_resnet50_fpn_v2": (kvision.models.mask_rcnn, TORCHVISION_V2, 432),
}


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's own state_dict."""
    return state_dict_shapes(section(golden("names"), f"{name}/state_dict"))


KEYPOINT_SHAPES = shapes_of("keypointrcnn_resnet50_fpn")


def build(name: str) -> keras.Model:
    builder, arguments, _ = DETECTORS[name]
    return builder("resnet50", class_names=COCO_SLOTS, image_size=(64, 64), **arguments)


def places_of(model: Any) -> list[Place]:
    return list(torchvision.places(model, {}))


def named(places: list[Place]) -> dict[str, tuple[int, ...]]:
    assert all(len(place.names) == 1 for place in places)
    return {place.names[0]: place.shapes[0] for place in places}


def needed(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {key: s for key, s in shapes.items() if not torchvision.is_spare(key)}


@pytest.mark.parametrize("name", DETECTORS)
def test_every_name_and_shape_of_a_detector(name: str) -> None:
    shapes = shapes_of(name)
    assert len(shapes) == DETECTORS[name][2]
    assert torchvision.recognises(set(shapes))
    model = build(name)
    places = places_of(model)
    assert named(places) == needed(shapes)
    assert {id(place.variable) for place in places} == {id(w) for w in model.weights}


@pytest.mark.parametrize("variant", ["resnet50", "resnet101"])
def test_every_name_and_shape_of_a_classifier(variant: str) -> None:
    shapes = shapes_of(variant)
    assert torchvision.recognises(set(shapes))
    assert {"fc.weight", "fc.bias"} <= set(shapes)
    assert named(places_of(kvision.models.resnet(variant))) == needed(shapes)


def test_names_of_a_keypoint_head() -> None:
    """A layer with the parts that such a head will have."""
    convs = [keras.layers.Conv2D(512, 3) for _ in range(8)]
    for conv, channels in zip(convs, [256, *7 * [512]], strict=True):
        conv.build((None, 14, 14, channels))
    scores = keras.layers.Conv2DTranspose(17, 4, 2, "same")
    scores.build((None, 14, 14, 512))
    head = SimpleNamespace(name="keypoint_head", convs=convs, scores=scores)
    model = kvision.models.faster_rcnn(class_names=["person"], image_size=(64, 64))
    layers = SimpleNamespace(layers=[*model.layers, head])
    assert named(places_of(layers)) == without_counters(KEYPOINT_SHAPES)


def without_counters(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {k: s for k, s in shapes.items() if not k.endswith("num_batches_tracked")}


def test_a_keypoint_head_is_left_out_and_the_report_says_so(tmp_path: Path) -> None:
    """The model finds people; one with such a head would take it."""
    path = tmp_path / "keypointrcnn.safetensors"
    save_file({k: np.full(s, 0.01, "f4") for k, s in KEYPOINT_SHAPES.items()}, path)
    model = kvision.models.faster_rcnn(class_names=["person"], image_size=(64, 64))
    report = kvision.weights.load(model, path)
    assert len(report.matched) == 295
    assert report.fresh == report.resized == ()
    keypoints = {n for n in KEYPOINT_SHAPES if n.startswith("roi_heads.keypoint_")}
    assert len(keypoints) == 18
    counters = set(KEYPOINT_SHAPES) - set(without_counters(KEYPOINT_SHAPES))
    assert set(report.unused) == keypoints | counters
    (remark,) = report.remarks
    assert remark.startswith("unused: 18 of a head for keypoints, which the model does")
    assert "roi_heads.keypoint_head.0.bias" in remark
    assert "18 of a head for keypoints" in repr(report)


def name_of_2019(name: str) -> str:
    """As `_load_from_state_dict` of torchvision 0.29 translates, but backwards."""
    name = re.sub(r"^(backbone\.fpn\.\w+_blocks\.\d)\.0\.", r"\1.", name)
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    for number in range(4):
        new = f"roi_heads.mask_head.{number}.0."
        name = name.replace(new, f"roi_heads.mask_head.mask_fcn{number + 1}.")
    return name


def test_names_of_2019() -> None:
    names = list(shapes_of("maskrcnn_resnet50_fpn"))
    old = [name_of_2019(name) for name in names]
    assert sum(a != b for a, b in zip(names, old, strict=True)) == 16 + 2 + 8
    assert [torchvision.renamed(name) for name in old] == names
    assert [torchvision.renamed(name) for name in names] == names


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mask R-CNN for 90 classes: each value says in which row it is."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes_of("maskrcnn_resnet50_fpn").items():
        values = rng.uniform(0.01, 0.02, shape).astype(np.float32)
        if "predictor" in name and "conv5" not in name:
            values[:] = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        tensors[name_of_2019(name)] = values
    path = tmp_path_factory.mktemp("torchvision") / "maskrcnn.safetensors"
    save_file(tensors, path)
    return path


def test_background_comes_last(checkpoint: Path) -> None:
    model = build("maskrcnn_resnet50_fpn")
    report = kvision.weights.load(model, checkpoint)
    assert len(report.matched) == 307
    assert len(report.unused) == 53
    assert report.remarks == ()
    head = model.get_layer("box_head")
    assert to_numpy(head.classes.bias).tolist() == [*range(1, 91), 0]
    assert to_numpy(head.classes.kernel)[7].tolist() == [*range(1, 91), 0]
    assert to_numpy(head.deltas.bias).tolist() == [*range(4, 364)]
    masks = model.get_layer("mask_head")
    assert to_numpy(masks.class_bias).tolist() == [*range(1, 91)]


@pytest.mark.parametrize("step", [1, -1])
def test_coco_names_choose_their_outputs(checkpoint: Path, step: int) -> None:
    """Of 91 outputs, those of the 80 categories and of the background; in any order."""
    names = list(COCO_NAMES.values())[::step]
    model = kvision.models.mask_rcnn(class_names=names, image_size=(64, 64))
    report = kvision.weights.load(model, checkpoint)
    assert report.fresh == ()
    ids = list(COCO_NAMES)[::step]
    head = model.get_layer("box_head")
    assert to_numpy(head.classes.bias).tolist() == [*ids, 0]
    assert to_numpy(head.classes.kernel)[7].tolist() == [*ids, 0]
    deltas = [4 * number + i for number in ids for i in range(4)]
    assert to_numpy(head.deltas.bias).tolist() == deltas
    assert to_numpy(model.get_layer("mask_head").class_bias).tolist() == ids


def test_eighty_other_classes_are_others(checkpoint: Path) -> None:
    names = [*list(COCO_NAMES.values())[:-1], "cell"]
    model = kvision.models.mask_rcnn(class_names=names, image_size=(64, 64))
    assert len(kvision.weights.load(model, checkpoint).fresh) == 6


def test_coco_names_are_those_of_its_annotations(shared_data: Path) -> None:
    (file,) = shared_data.glob("coco_mini/**/instances_val*.json")
    categories = json.loads(file.read_text())["categories"]
    assert {one["id"]: one["name"] for one in categories} == COCO_NAMES


def test_other_classes_leave_the_last_layers_fresh(checkpoint: Path) -> None:
    model = kvision.models.mask_rcnn(class_names=["cell"], image_size=(64, 64))
    before = to_numpy(model.get_layer("box_head").classes.kernel)
    report = kvision.weights.load(model, checkpoint)
    assert len(report.matched) == 307 - 6
    assert len(report.fresh) == 6
    np.testing.assert_array_equal(
        to_numpy(model.get_layer("box_head").classes.kernel), before
    )


def test_a_mask_head_is_left_out_only_if_it_is_named(checkpoint: Path) -> None:
    model = build("fasterrcnn_resnet50_fpn")
    with pytest.raises(CheckpointError, match=r"12 in the file without a place"):
        kvision.weights.load(model, checkpoint)
    report = kvision.weights.load(model, checkpoint, unused=["roi_heads.mask_"])
    assert len(report.matched) == 295


def test_version_2_does_not_fit_version_1(checkpoint: Path) -> None:
    model = build("maskrcnn_resnet50_fpn_v2")
    before = model.get_weights()
    with pytest.raises(CheckpointError, match=r"missing in the file: .*\.1\.bias"):
        kvision.weights.load(model, checkpoint)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    tensors = {
        name: np.asarray(rng.uniform(0.5, 1.5, shape), np.float32)
        for name, shape in shapes_of("resnet50").items()
    }
    path = tmp_path_factory.mktemp("torchvision") / "resnet50.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("freeze_batch_norm", [None, False])
def test_backbone_of_a_detector_from_a_classifier(
    classifier: Path, freeze_batch_norm: bool | None
) -> None:
    model = kvision.models.mask_rcnn(
        class_names=["cell"],
        image_size=(64, 64),
        weights=str(classifier),
        freeze_batch_norm=freeze_batch_norm,
    )
    body = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    alone = kvision.models.resnet("resnet50")
    report = kvision.weights.load(alone, classifier)
    assert len(report.matched) == 265
    assert len(report.unused) == 53 + 2
    for layer in alone.layers:
        for ours, theirs in zip(
            body.get_layer(layer.name).weights, layer.weights, strict=True
        ):
            np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs), layer.name)
    is_trainable = bool(body.get_layer("layer3_0_bn1").trainable_weights)
    assert is_trainable is (freeze_batch_norm is False)


def test_classifier_of_another_depth(classifier: Path) -> None:
    with pytest.raises(CheckpointError, match=r"layer3\.6\.bn1\.bias"):
        kvision.weights.load(kvision.models.resnet("resnet101"), classifier)
