"""Mask R-CNN with a checkpoint of detectron2 against its arithmetic in NumPy."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kvision
from kvision.models.rcnn_conventions import DETECTRON2
from kvision.weights import detectron2
from tests.ops.modes import to_numpy
from tests.parity import detectron2_seeded
from tests.parity.compare import (
    BOX_TOLERANCE,
    assert_boxes_equal,
    assert_detections_matched,
    assert_equal,
)
from tests.parity.numpy_detectron2 import BLOCKS, Detectron2
from tests.parity.seeded import images_for

IMAGE_SIZE = (160, 224)  # 64 divides neither
NUM_CLASSES = 5
NUM_MASKS = 6
MAX_PROPOSALS = 300
BACKGROUND = 3.0  # logit added to the background: more of it, fewer detections


@dataclass
class Run:
    """The reference, our model, one image, and what both make of it."""

    reference: Detectron2
    model: keras.Model
    image: np.ndarray
    stages: dict[int, np.ndarray]
    maps: dict[int, np.ndarray]
    proposals: np.ndarray
    logits: np.ndarray
    deltas: np.ndarray
    ours: dict[str, Any]

    @property
    def pooled_maps(self) -> dict[str, np.ndarray]:
        return {f"P{level}": self.maps[level][None] for level in (2, 3, 4, 5)}


def load(model: keras.Model, tensors: dict[str, np.ndarray], folder: Path) -> None:
    """Write a file like those of the zoo and read it."""
    spare = {"pixel_mean": np.zeros((3, 1, 1), np.float32)}
    content = {"model": {**tensors, **spare}, "__author__": "Detectron2 Model Zoo"}
    (folder / "model_final.pkl").write_bytes(pickle.dumps(content))
    report = kvision.weights.load(model, folder / "model_final.pkl")
    assert report.source == "detectron2"
    assert set(report.matched) == set(tensors)
    assert report.unused == ("pixel_mean",)
    assert report.fresh == report.resized == ()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    shapes = detectron2_seeded.shapes(BLOCKS[50], NUM_CLASSES)
    assert len(shapes) == 307
    tensors = {n: detectron2_seeded.weights_for(n, s) for n, s in shapes.items()}
    image = images_for(1, IMAGE_SIZE)[0]
    reference = Detectron2(tensors, IMAGE_SIZE, max_proposals=MAX_PROPOSALS)
    stages = reference.backbone(image)
    maps = reference.pyramid(stages)
    proposals = reference.proposals(maps)
    logits, deltas = reference.box_head(maps, proposals)
    # Centred, so that every class is detected.
    shift = BACKGROUND * (np.arange(NUM_CLASSES + 1) == NUM_CLASSES) - logits.mean(0)
    tensors["roi_heads.box_predictor.cls_score.bias"] += shift.astype(np.float32)
    logits += shift
    model = kvision.models.mask_rcnn(
        class_names=[f"class {i}" for i in range(NUM_CLASSES)],
        image_size=IMAGE_SIZE,
        rpn_post_nms_top_k=MAX_PROPOSALS,
        **DETECTRON2,
    )
    load(model, tensors, tmp_path_factory.mktemp("detectron2"))
    ours = to_numpy(model(image[None]))
    found = (stages, maps, proposals, logits, deltas)
    return Run(reference, model, image, *found, ours)


def backbone_of(model: keras.Model) -> keras.Model:
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def test_backbone_and_pyramid(run: Run) -> None:
    images = run.model.get_layer("normalization")(run.image[None].astype(np.float32))
    stages = backbone_of(run.model)(images)
    for level, theirs in run.stages.items():
        assert_equal(to_numpy(stages[f"C{level}"])[0], theirs, f"C{level}")
    maps = run.model.get_layer("pyramid")(stages)
    for level, theirs in run.maps.items():
        assert_equal(to_numpy(maps[f"P{level}"])[0], theirs, f"P{level}")


def test_rpn_and_proposals(run: Run) -> None:
    maps = {f"P{level}": values[None] for level, values in run.maps.items()}
    logits, deltas = run.model.get_layer("rpn")(maps)
    for level, values in run.maps.items():
        theirs = run.reference.rpn(values)
        assert_equal(to_numpy(logits[f"P{level}"])[0], theirs[0], f"P{level} logits")
        assert_equal(to_numpy(deltas[f"P{level}"])[0], theirs[1], f"P{level} deltas")
    anchors = run.model.get_layer("anchors")(maps)
    for level, values in run.maps.items():
        theirs = run.reference.anchors(values.shape[:2], level)
        assert_boxes_equal(to_numpy(anchors[f"P{level}"]), theirs, f"P{level} anchors")
    # torchvision's are elsewhere.
    fractions = kvision.layers.Anchors(IMAGE_SIZE, rounded=False)(maps)
    assert np.abs(to_numpy(fractions["P6"]) - to_numpy(anchors["P6"])).max() > 10
    proposals, is_proposal = run.model.get_layer("proposals")(logits, deltas, anchors)
    ours = to_numpy(proposals)[0][to_numpy(is_proposal)[0]]
    assert len(ours) == len(run.proposals) >= 200
    distance = np.abs(ours[:, None] - run.proposals[None]).max(-1)
    missing = (distance.min(0) > BOX_TOLERANCE).mean()
    print(f"{missing:.1%} of {len(ours)} proposals missing")
    assert missing <= 0.01


def test_box_head_on_given_rois(run: Run) -> None:
    rois = run.proposals[:100].astype(np.float32)
    pooled = run.model.get_layer("box_roi_align")(run.pooled_maps, rois[None])
    theirs = run.reference.pooled(run.maps, rois, 7)
    assert_equal(to_numpy(pooled)[0], theirs, "regions")
    logits, deltas = run.model.get_layer("box_head")(pooled)
    assert_equal(to_numpy(logits)[0], run.logits[:100], "class logits")
    assert_equal(to_numpy(deltas)[0], run.deltas[:100], "box deltas")


def detected(run: Run) -> dict[str, np.ndarray]:
    """What the reference makes of the image."""
    found = run.reference.detections(run.logits, run.deltas, run.proposals)
    return dict(zip(("boxes", "scores", "labels"), found, strict=True))


def of_image(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    number = outputs["num_detections"][0]
    return {name: outputs[name][0, :number] for name in ("boxes", "scores", "labels")}


def test_detections_from_image_to_masks(run: Run) -> None:
    theirs, ours = detected(run), of_image(run.ours)
    assert len(set(theirs["labels"])) >= 4
    assert_detections_matched(ours, theirs, "detections")
    boxes, labels = ours["boxes"][:NUM_MASKS], ours["labels"][:NUM_MASKS]
    masks = run.reference.masks(run.maps, boxes, labels)
    assert_equal(run.ours["masks"][0, :NUM_MASKS], masks, "masks")


def test_samples_of_a_bin_show(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two by two of them in every region are not equal."""
    align = run.model.get_layer("box_roi_align")
    monkeypatch.setattr(align, "sampling_ratio", 2)
    ours = of_image(to_numpy(run.model(run.image[None])))
    with pytest.raises(AssertionError):
        assert_detections_matched(ours, detected(run), "two by two samples")


@pytest.mark.parametrize(
    "changed",
    [
        {"stride_in_1x1": False},
        {"roi_align_mode": "unaligned"},
        {"normalization": "auto"},
        {"batch_norm_epsilon": 1e-3},
    ],
)
def test_each_difference_shows(run: Run, changed: dict[str, Any]) -> None:
    """Otherwise the comparison would not notice a wrong convention."""
    model = kvision.models.mask_rcnn(
        class_names=run.model.class_names,
        image_size=IMAGE_SIZE,
        rpn_post_nms_top_k=MAX_PROPOSALS,
        **{**DETECTRON2, **changed},
    )
    model.set_weights(run.model.get_weights())
    scores = to_numpy(model(run.image[None]))["scores"]
    assert np.abs(scores - run.ours["scores"]).max() > 1e-2


def test_resnet101_has_the_same_names() -> None:
    shapes = detectron2_seeded.shapes(BLOCKS[101], 80)
    model = kvision.models.mask_rcnn(
        "resnet101",
        class_names=[f"class {i}" for i in range(80)],
        image_size=(64, 64),
        **DETECTRON2,
    )
    places = list(detectron2.places(model, shapes))
    assert {place.names[0]: place.shapes[0] for place in places} == shapes
