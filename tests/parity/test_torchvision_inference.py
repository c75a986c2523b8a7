"""Mask R-CNN against torchvision 0.29's, stage by stage, on the same weights."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvision
from kvision.models.rcnn_conventions import TORCHVISION_V1, TORCHVISION_V2
from kvision.ops.masks import paste_masks_integer
from tests.ops.modes import to_numpy
from tests.parity.compare import (
    BOX_TOLERANCE,
    TOLERANCE,
    assert_boxes_equal,
    assert_detections_matched,
    assert_equal,
    difference,
    golden,
    section,
)
from tests.parity.detector import load, seeded_mask_rcnn, state_dict_shapes
from tests.parity.seeded import images_for, sample, summary, weights_for


@dataclass
class Run:
    """A model, what torchvision recorded for it, its features and detections."""

    model: keras.Model
    recorded: dict[str, np.ndarray]
    images: np.ndarray
    stages: dict[str, Any]
    maps: dict[str, Any]
    found: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.recorded[name]

    @property
    def pooled_maps(self) -> dict[str, Any]:
        return {name: self.maps[name] for name in ("P2", "P3", "P4", "P5")}

    def layer(self, name: str) -> Any:
        return self.model.get_layer(name)

    def stacked(self, name: str, rows: int | None = None) -> np.ndarray:
        """Arrays "name_0", "name_1" of the images, cut to equal length."""
        values = [self.recorded[f"{name}_{i}"] for i in range(len(self.images))]
        return np.stack([v[:rows] for v in values])


def backbone_of(model: keras.Model) -> keras.Model:
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def run(
    name: str,
    num_classes: int,
    image_size: tuple[int, int],
    count: int,
    **arguments: Any,
) -> Run:
    recorded = golden(name)
    model = seeded_mask_rcnn(recorded, num_classes, image_size=image_size, **arguments)
    images = images_for(count, image_size)
    stages = backbone_of(model)(model.get_layer("normalization")(images.astype("f4")))
    maps = model.get_layer("pyramid")(stages)
    return Run(model, recorded, images, stages, maps, to_numpy(model(images)))


@pytest.fixture(scope="module")
def small() -> Run:
    """5 classes, 2 images of 256 x 320, the epsilon of torchvision's COCO_V1."""
    return run("mask_rcnn", 5, (256, 320), 2, **TORCHVISION_V1)


@pytest.fixture(scope="module")
def coco() -> Run:
    """90 classes, an image of 448 x 544, the default epsilon."""
    return run("mask_rcnn_coco", 90, (448, 544), 1)


@pytest.fixture(scope="module")
def odd() -> Run:
    """5 classes, an image of 203 x 317 pixels, which no stride divides."""
    return run("mask_rcnn_odd", 5, (203, 317), 1)


@pytest.fixture(scope="module")
def second() -> Run:
    """Version 2: 5 classes, 2 images of 256 x 320, statistics of batches not frozen."""
    arguments = {"freeze_batch_norm": False, **TORCHVISION_V2}
    return run("mask_rcnn_v2", 5, (256, 320), 2, **arguments)


@pytest.fixture(params=["small", "coco", "odd", "second"])
def case(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(request.param)


def assert_digest(
    case: Run | dict, name: str, values: np.ndarray, count: int = 500
) -> None:
    """Compare some values and the size of all; tolerance of the whole tensor."""
    values = to_numpy(values)
    scale = case[f"{name}/summary"][2]
    ours, theirs = sample(values, count), case[f"{name}/sample"]
    measured = float(np.abs(ours - theirs).max() / scale)
    total = difference(summary(values), case[f"{name}/summary"])
    print(f"{name}: {measured:.1e} of the largest value; mean, rms, max {total:.1e}")
    assert measured <= TOLERANCE
    assert total <= TOLERANCE


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_backbone(case: Run, level: int) -> None:
    assert_digest(case, f"C{level}", case.stages[f"C{level}"])


def test_resnet101() -> None:
    recorded = golden("resnet101")
    body = kvision.models.resnet("resnet101", (128, 160), freeze_batch_norm=True)
    shapes = state_dict_shapes(section(golden("names"), "resnet101/state_dict"))
    tensors = {
        name: weights_for(f"backbone.body.{name}", shape)
        for name, shape in shapes.items()
        if not name.startswith("fc.")
    }
    load(body, tensors)
    images = normalised(images_for(1, (128, 160)))
    for level, values in body(images).items():
        assert_digest(recorded, level, values)


def normalised(images: np.ndarray) -> np.ndarray:
    mean, std = np.array([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]], "f4")
    return (images - mean) / std


@pytest.mark.parametrize("level", [2, 3, 4, 5, 6])
def test_pyramid(case: Run, level: int) -> None:
    assert_digest(case, f"P{level}", case.maps[f"P{level}"])


def test_recorded_values_tell_the_two_epsilons_apart(
    small: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the comparison would not notice a wrong one."""
    body = backbone_of(small.model)
    for layer in body.layers:
        if isinstance(layer, kvision.layers.FrozenBatchNormalization):
            monkeypatch.setattr(layer, "epsilon", 1e-5)
    c5 = body(small.layer("normalization")(small.images.astype("f4")))["C5"]
    theirs = small["C5/sample"]
    measured = np.abs(sample(to_numpy(c5)) - theirs).max() / small["C5/summary"][2]
    assert measured > 3 * TOLERANCE


def rpn_outputs(case: Run) -> tuple[dict, dict]:
    return case.layer("rpn")(case.maps)


def test_rpn(case: Run) -> None:
    logits, deltas = rpn_outputs(case)
    levels = sorted(logits)
    logits = np.concatenate([to_numpy(logits[name]) for name in levels], 1)
    deltas = np.concatenate([to_numpy(deltas[name]) for name in levels], 1)
    assert_equal(logits, case["objectness_logits"], "objectness logits")
    assert_digest(case, "anchor_deltas", deltas, 4000)


def test_proposals(case: Run) -> None:
    """The same boxes in the same order, up to equal scores and overlaps at 0.7."""
    proposals, is_proposal = case.layer("proposals")(
        *rpn_outputs(case), case.layer("anchors")(case.maps)
    )
    for i in range(len(case.images)):
        ours = to_numpy(proposals)[i][to_numpy(is_proposal)[i]]
        theirs = case[f"proposals_{i}"]
        assert len(theirs) == len(ours) >= 900
        distance = np.abs(ours[:, None] - theirs[None]).max(-1)
        missing = (distance.min(0) > BOX_TOLERANCE).mean()
        extra = (distance.min(1) > BOX_TOLERANCE).mean()
        moved = (np.abs(ours - theirs).max(1) > BOX_TOLERANCE).mean()
        print(
            f"image {i}: {missing:.1%} of {len(ours)} proposals missing, {extra:.1%} "
            f"extra, {moved:.1%} at another rank; others within "
            f"{distance.min(0).max():.1e} px"
        )
        assert max(missing, extra) <= 0.01


def test_box_head_on_given_rois(case: Run) -> None:
    rois = case.stacked("proposals", 100)
    pooled = case.layer("box_roi_align")(case.pooled_maps, rois)
    logits, deltas = case.layer("box_head")(pooled)
    assert_digest(case, "roi_features", pooled, 2000)
    theirs = np.roll(case["class_logits"], -1, axis=1)  # background to the end
    ours = to_numpy(logits).reshape(theirs.shape)
    assert_equal(ours, theirs, "class logits")
    theirs = case["box_deltas"].reshape(len(theirs), -1, 4)[:, 1:]
    assert_equal(to_numpy(deltas).reshape(theirs.shape), theirs, "box deltas")


def test_detections_on_given_head_outputs(case: Run) -> None:
    """Softmax, decoding, suppression: torchvision's logits and deltas of 100 RoIs."""
    batch, classes = len(case.images), len(case.model.class_names)
    rois = case.stacked("proposals", 100)
    shape = (batch, 100, classes + 1)
    logits = np.roll(case["class_logits"], -1, axis=1).reshape(shape)
    deltas = case["box_deltas"].reshape(*shape, 4)[:, :, 1:]
    select = kvision.layers.DetectionSelection(
        case.model.image_size, score_threshold=0.002
    )
    found = to_numpy(select(logits, deltas, rois, np.ones((batch, 100), bool)))
    for i, number in enumerate(found["num_detections"]):
        scores = case[f"selected_scores_{i}"]
        assert number == len(scores) >= 50
        assert_equal(found["scores"][i, :number], scores, f"image {i}: scores")
        labels = case[f"selected_labels_{i}"] - 1
        np.testing.assert_array_equal(found["labels"][i, :number], labels)
        boxes = case[f"selected_boxes_{i}"]
        assert_boxes_equal(found["boxes"][i, :number], boxes, f"image {i}: boxes")


def assert_detections_equal(case: Run, found: dict[str, np.ndarray]) -> None:
    """Match both ways: 99 % of those away from a threshold, and their masks."""
    for i in range(len(case.images)):
        theirs = {
            "boxes": case[f"boxes_{i}"],
            "scores": case[f"scores_{i}"],
            "labels": case[f"labels_{i}"] - 1,  # background is 0 there
        }
        number = found["num_detections"][i]
        ours = {name: found[name][i, :number] for name in ("boxes", "scores", "labels")}
        assert len(set(theirs["labels"])) >= 4
        assert_detections_matched(ours, theirs, f"image {i}")
        assert (np.diff(found["scores"][i]) <= 0).all()
        # masks of the detections that hold the same rank
        count = len(case[f"masks_{i}"])
        same = np.abs(ours["boxes"][:count] - theirs["boxes"][:count]).max(1) < 0.01
        assert same.mean() >= 0.9
        masks = found["masks"][i, :count][same]
        assert_equal(masks, case[f"masks_{i}"][same], f"image {i}: masks")


def test_detections_from_image_to_masks(case: Run) -> None:
    """The whole model, eagerly."""
    assert_detections_equal(case, case.found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("mask_rcnn_full", TORCHVISION_V1), ("mask_rcnn_v2_full", TORCHVISION_V2)],
)
def test_full_size(name: str, arguments: dict[str, Any]) -> None:
    """90 classes, an image of 800 x 1088."""
    case = run(name, 90, (800, 1088), 1, **arguments)
    for level, values in {**case.stages, **case.maps}.items():
        assert_digest(case, level, values)
    assert_detections_equal(case, case.found)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_detections(case: Run, jit_compile: bool) -> None:
    """The whole model as a graph (fused ROIAlign) and by XLA (gathers)."""
    compiled = tf.function(case.model, jit_compile=jit_compile)
    images = tf.constant(case.images.astype("f4"))
    assert_detections_equal(case, to_numpy(compiled(images)))


def test_mask_head_on_given_boxes(case: Run) -> None:
    """Logits of every class, of which inference computes one a detection."""
    count = len(case["masks_0"])
    boxes = case.stacked("boxes", count)
    pooled = case.layer("mask_roi_align")(case.pooled_maps, boxes)
    classes = len(case.model.class_names)
    chosen = range(0, classes, 1 if classes < 10 else 17)
    size = (*boxes.shape[:2], 28, 28, classes + 1)
    logits = np.full(size, np.nan, np.float32)
    for label in chosen:
        labels = np.full(boxes.shape[:2], label, np.int32)
        logits[..., label + 1] = to_numpy(case.layer("mask_head")(pooled, labels))
    ours, theirs = sample(logits, 4000), case["mask_logits/sample"]
    known = ~np.isnan(ours)
    assert known.sum() > 200
    measured = np.abs(ours - theirs)[known].max() / case["mask_logits/summary"][2]
    print(f"mask logits: {measured:.1e} of the largest value")
    assert measured <= TOLERANCE


def test_pasted_masks(case: Run) -> None:
    """Our masks of their boxes, pasted their way: pixels above one half."""
    count = len(case["masks_0"])
    boxes, labels = case.stacked("boxes", count), case.stacked("labels", count) - 1
    pooled = case.layer("mask_roi_align")(case.pooled_maps, boxes)
    logits = case.layer("mask_head")(pooled, labels.astype("i4"))
    masks = to_numpy(keras.ops.sigmoid(logits))
    assert_equal(masks, case.stacked("masks"), "mask probabilities")
    height, width = case.model.image_size
    pasted = to_numpy(paste_masks_integer(masks, boxes, (height, width)))
    expected = np.unpackbits(case.stacked("pasted"), axis=-1, count=width).astype(bool)
    different = (pasted > 0.5) != expected
    print(f"pasted: {different.sum()} of {expected.sum()} pixels differ, all at 0.5")
    assert expected.sum() > 2000
    assert np.abs(pasted[different] - 0.5).max(initial=0) < 1e-4
