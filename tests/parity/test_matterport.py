"""Mask R-CNN with a checkpoint of matterport against its arithmetic in NumPy."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import kvision
from kvision.models.rcnn_conventions import MATTERPORT
from kvision.weights import matterport
from tests.ops.modes import to_numpy
from tests.parity import numpy_matterport
from tests.parity.compare import (
    BOX_TOLERANCE,
    assert_boxes_equal,
    assert_detections_matched,
    assert_equal,
)
from tests.parity.numpy_matterport import BLOCKS, RPN, Matterport
from tests.parity.seeded import images_for, uniform

IMAGE_SIZE = (192, 256)
NUM_CLASSES = 5
NUM_MASKS = 6
# Fewer than there are (6000, 1000), so that they matter in a small image.
PRE_NMS_LIMIT, MAX_PROPOSALS = 1000, 600
SCALE = np.array([*IMAGE_SIZE, *IMAGE_SIZE])  # of (y, x, y, x)
XYXY = [1, 0, 3, 2]


@dataclass
class Run:
    """The reference, our model and one image."""

    reference: Matterport
    model: keras.Model
    image: np.ndarray
    stages: dict[int, np.ndarray]
    maps: dict[int, np.ndarray]
    rois: np.ndarray  # (y1, x1, y2, x2), relative
    proposals: np.ndarray  # the same
    logits: np.ndarray
    deltas: np.ndarray
    ours: dict[str, Any]

    @property
    def all_maps(self) -> dict[str, np.ndarray]:
        return {f"P{level}": values[None] for level, values in self.maps.items()}

    @property
    def pooled_maps(self) -> dict[str, np.ndarray]:
        return {f"P{level}": self.maps[level][None] for level in (2, 3, 4, 5)}

    def inside(self, boxes: np.ndarray) -> np.ndarray:
        """Relative boxes as our layers have them: `to_inclusive` of pixels."""
        return (boxes * SCALE)[:, XYXY].astype(np.float32)


def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a file as Keras 2 did."""
    with h5py.File(path, "w") as file:
        for name, values in tensors.items():
            file[f"{name_in_the_file(name)}:0"] = values


def name_in_the_file(name: str) -> str:
    """Put a group around each layer, and one around the RPN."""
    layer = name.split("/")[0]
    return f"{'rpn_model' if layer in RPN else layer}/{name}"


def regions(count: int) -> np.ndarray:
    """Boxes of all sizes, some of them for each level."""
    side = np.exp(uniform("side", (count, 2), math.log(0.1), math.log(1.6)))
    centre = uniform("centre", (count, 2), 0, 1)
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    # Samples on the last row are 0 or not by rounding.
    return np.clip(boxes, 0, 0.999).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    shapes = numpy_matterport.shapes(BLOCKS[50], NUM_CLASSES)
    tensors = {n: numpy_matterport.weights_for(n, s) for n, s in shapes.items()}
    image = images_for(1, IMAGE_SIZE)[0]
    reference = Matterport(
        tensors,
        IMAGE_SIZE,
        pre_nms_limit=PRE_NMS_LIMIT,
        max_proposals=MAX_PROPOSALS,
    )
    stages = reference.backbone(image)
    maps = reference.pyramid(stages)
    proposals = reference.proposals(maps)
    logits, deltas = reference.box_head(reference.pooled(maps, proposals, 7))
    # Centred, so that every class is detected.
    tensors["mrcnn_class_logits/bias"] -= logits.mean(0)
    logits -= logits.mean(0)
    path = tmp_path_factory.mktemp("matterport") / "mask_rcnn.h5"
    write(path, tensors)
    model = kvision.models.mask_rcnn(
        class_names=[f"class {i}" for i in range(NUM_CLASSES)],
        image_size=IMAGE_SIZE,
        rpn_post_nms_top_k=MAX_PROPOSALS,
        **{**MATTERPORT, "rpn_pre_nms_top_k": PRE_NMS_LIMIT},
    )
    report = kvision.weights.load(model, path)
    assert report.source == "matterport"
    assert set(report.matched) == set(map(name_in_the_file, tensors))
    assert report.fresh == report.resized == report.unused == ()
    ours = to_numpy(model(image[None]))
    found = (stages, maps, regions(60), proposals, logits, deltas)
    return Run(reference, model, image, *found, ours)


def backbone_of(model: keras.Model) -> keras.Model:
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def test_names_are_those_of_the_published_file() -> None:
    """690 tensors, 64,158,584 values on ResNet-101: `detection.md` counted them."""
    shapes = numpy_matterport.shapes(BLOCKS[101], 80)
    assert len(shapes) == 690
    assert sum(math.prod(shape) for shape in shapes.values()) == 64_158_584
    model = kvision.models.mask_rcnn(
        "resnet101",
        class_names=[f"class {i}" for i in range(80)],
        image_size=(64, 64),
        **MATTERPORT,
    )
    found = {
        name: shape
        for place in matterport.places(model, shapes)
        for name, shape in zip(place.names, place.shapes, strict=True)
    }
    assert found == shapes


def test_backbone_and_pyramid(run: Run) -> None:
    images = run.model.get_layer("normalization")(run.image[None].astype(np.float32))
    stages = backbone_of(run.model)(images)
    for level, theirs in run.stages.items():
        assert_equal(to_numpy(stages[f"C{level}"])[0], theirs, f"C{level}")
    maps = run.model.get_layer("pyramid")(stages)
    for level, theirs in run.maps.items():
        assert_equal(to_numpy(maps[f"P{level}"])[0], theirs, f"P{level}")


@pytest.mark.parametrize(
    "changed",
    [{"stride_in_1x1": False}, {"pool_padding": "symmetric"}, {"epsilon": 1e-5}],
)
def test_each_difference_of_the_backbone_shows(run: Run, changed: dict) -> None:
    arguments = {"stride_in_1x1": True, "pool_padding": "same", **changed}
    epsilon = arguments.pop("epsilon", 1e-3)
    body = kvision.models.resnet(
        "resnet50", IMAGE_SIZE, batch_norm_epsilon=epsilon, **arguments
    )
    body.set_weights(backbone_of(run.model).get_weights())
    images = run.model.get_layer("normalization")(run.image[None].astype(np.float32))
    theirs = run.stages[5]
    assert np.abs(to_numpy(body(images))["C5"] - theirs).max() > 0.01 * theirs.max()


def test_rpn(run: Run) -> None:
    logits, deltas = run.model.get_layer("rpn")(run.all_maps)
    for level, values in run.maps.items():
        scores, theirs = run.reference.rpn(values)
        ours = to_numpy(keras.ops.sigmoid(logits[f"P{level}"]))[0]
        assert_equal(ours, scores, f"P{level} scores")
        assert scores.std() > 0.05
        # It divides by its deviations where the deltas are used, and so do we.
        ours = to_numpy(deltas[f"P{level}"])[0] / MATTERPORT["rpn_delta_weights"]
        assert_equal(ours, theirs[:, XYXY], f"P{level} deltas")


def test_anchors(run: Run) -> None:
    """The tall ones come first, and all end at the index of their last pixel."""
    anchors = run.model.get_layer("anchors")(run.all_maps)
    for level, values in run.maps.items():
        theirs = run.reference.anchors(values.shape[:2], level)
        ours = to_numpy(anchors[f"P{level}"])
        assert_boxes_equal(ours, run.inside(theirs), f"P{level} anchors")


def test_proposals(run: Run) -> None:
    """One suppression for the best anchors of all levels."""
    anchors = run.model.get_layer("anchors")(run.all_maps)
    rpn = run.model.get_layer("rpn")(run.all_maps)
    found, is_proposal = to_numpy(run.model.get_layer("proposals")(*rpn, anchors))
    ours, theirs = found[0][is_proposal[0]], run.inside(run.proposals)
    assert 300 <= len(ours) == len(theirs) < MAX_PROPOSALS
    distance = np.abs(ours[:, None] - theirs[None]).max(-1)
    missing = (distance.min(0) > BOX_TOLERANCE).mean()
    print(f"{missing:.1%} of {len(ours)} proposals missing")
    assert missing <= 0.01


def test_box_head(run: Run) -> None:
    rois = run.inside(run.rois)
    pooled = run.model.get_layer("box_roi_align")(run.pooled_maps, rois[None])
    theirs = run.reference.pooled(run.maps, run.rois, 7)
    assert_equal(to_numpy(pooled)[0], theirs, "regions")
    logits, deltas = run.model.get_layer("box_head")(pooled)
    expected = run.reference.box_head(theirs)
    assert_equal(to_numpy(logits)[0], np.roll(expected[0], -1, 1), "class logits")
    # Our weights (10, 10, 5, 5) are one over its deviations.
    assert_equal(to_numpy(deltas)[0], expected[1][:, 1:, XYXY], "box deltas")


def test_masks(run: Run) -> None:
    rois, count = run.inside(run.rois[:4]), 4
    pooled = run.model.get_layer("mask_roi_align")(run.pooled_maps, rois[None])
    theirs = run.reference.masks(run.reference.pooled(run.maps, run.rois[:4], 14))
    for label in range(NUM_CLASSES):
        labels = np.full((1, count), label, np.int32)
        logits = run.model.get_layer("mask_head")(pooled, labels)
        ours = to_numpy(keras.ops.sigmoid(logits))[0]
        assert_equal(ours, theirs[..., label + 1], f"masks of class {label}")


@pytest.mark.parametrize("min_confidence", [0.7, 0.25])
def test_detections_of_given_head_outputs(run: Run, min_confidence: float) -> None:
    """Below one half a second class could be confident too; it is never detected."""
    count = 300
    rois = regions(count)
    logits = uniform("logits", (count, NUM_CLASSES + 1), -6, 6)
    deltas = uniform("deltas", (count, NUM_CLASSES + 1, 4), -1, 1)
    boxes, scores, labels = numpy_matterport.detections(
        logits, deltas, rois, min_confidence
    )
    assert len(scores) >= 50
    select = kvision.layers.DetectionSelection(
        IMAGE_SIZE, min_confidence, 0.3, best_class_only=True
    )
    found = to_numpy(
        select(
            np.roll(logits, -1, 1)[None],
            deltas[None, :, 1:, XYXY],
            run.inside(rois)[None],
            np.ones((1, count), bool),
        )
    )
    number = found["num_detections"][0]
    assert number == len(scores)
    assert_equal(found["scores"][0, :number], scores, "scores")
    np.testing.assert_array_equal(found["labels"][0, :number], labels - 1)
    expected = run.inside(boxes)
    assert_boxes_equal(found["boxes"][0, :number], expected, "boxes")


def detected(run: Run) -> dict[str, np.ndarray]:
    """What the reference makes of the image; boxes (x1, y1, x2, y2) in pixels."""
    boxes, scores, labels = numpy_matterport.detections(
        run.logits, run.deltas, run.proposals
    )
    boxes = numpy_matterport.absolute(boxes, IMAGE_SIZE)[:, XYXY]
    return {"boxes": boxes, "scores": scores, "labels": labels - 1}


def of_image(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    number = outputs["num_detections"][0]
    return {name: outputs[name][0, :number] for name in ("boxes", "scores", "labels")}


def test_detections_from_image_to_masks(run: Run) -> None:
    theirs = detected(run)
    assert len(set(theirs["labels"])) >= 4
    assert_detections_matched(of_image(run.ours), theirs, "detections", 0.7)
    padding = run.ours["labels"][0] < 0
    assert not run.ours["boxes"][0][padding].any()
    boxes = theirs["boxes"][:NUM_MASKS]
    assert_boxes_equal(run.ours["boxes"][0, :NUM_MASKS], boxes, "first boxes")
    rois = numpy_matterport.relative(boxes[:, XYXY], IMAGE_SIZE)
    masks = run.reference.masks(run.reference.pooled(run.maps, rois, 14))
    rows, labels = np.arange(NUM_MASKS), theirs["labels"][:NUM_MASKS] + 1
    assert_equal(run.ours["masks"][0, :NUM_MASKS], masks[rows, ..., labels], "masks")


@pytest.mark.parametrize(
    ("layer", "attribute", "value"),
    [
        ("anchors", "inclusive", False),
        ("proposals", "per_level", True),
        ("box_roi_align", "canonical_size", 224.0),
        ("box_roi_align", "mode", "unaligned"),
        ("detections", "nms_iou_threshold", 0.5),
    ],
)
def test_each_difference_of_the_detections_shows(
    run: Run, layer: str, attribute: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the comparison would not notice a wrong convention."""
    monkeypatch.setattr(run.model.get_layer(layer), attribute, value)
    ours = of_image(to_numpy(run.model(run.image[None])))
    with pytest.raises(AssertionError):
        assert_detections_matched(ours, detected(run), attribute, 0.7)
