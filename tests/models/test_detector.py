"""The detector as a Keras model: contract, training, files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvision
from kvision.models import Detector, faster_rcnn, with_image_size
from tests.models.tiny import (
    CLASS_NAMES,
    IMAGE_SIZE,
    SMALL,
    blocks,
    dataset,
    tiny_backbone,
    tiny_mask_rcnn,
)
from tests.ops.modes import to_numpy

LOSSES = ["rpn_objectness_loss", "rpn_box_loss", "class_loss", "box_loss", "mask_loss"]


def detections(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    return to_numpy(model(images))


def that_detects(model: Detector) -> Detector:
    """Scale random heads so that scores pass the threshold and boxes move."""
    model.get_layer("box_head").classes.kernel.assign(
        30 * model.get_layer("box_head").classes.kernel
    )
    model.get_layer("box_head").deltas.kernel.assign(
        100 * model.get_layer("box_head").deltas.kernel
    )
    model.get_layer("mask_head").class_kernel.assign(
        300 * model.get_layer("mask_head").class_kernel
    )
    return model


def assert_same_detections(
    got: dict[str, np.ndarray], expected: dict[str, np.ndarray], atol: float = 1e-4
) -> None:
    assert list(got) == list(expected)
    assert expected["num_detections"].sum() >= 10, "nothing is compared"
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=atol, err_msg=name)


def losses_of(
    model: Detector, images: np.ndarray, targets: dict[str, np.ndarray]
) -> dict[str, float]:
    """Evaluate one batch eagerly, without tracing."""
    if not model.compiled:
        model.compile(run_eagerly=True)
    return model.evaluate(
        images, targets, batch_size=len(images), return_dict=True, verbose=0
    )


def fit_eagerly(model: Detector, optimizer: Any = None, **kwargs: Any) -> dict:
    model.compile(optimizer, run_eagerly=True)
    kwargs = {"epochs": 1, "verbose": 0, "shuffle": False, "batch_size": 2} | kwargs
    return model.fit(*blocks(), **kwargs).history


# The contract of the outputs


@pytest.fixture(scope="module")
def untrained() -> Detector:
    return that_detects(tiny_mask_rcnn())


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_outputs(untrained: Detector, batch_size: int, dtype: str) -> None:
    images = blocks(batch_size)[0].astype(dtype)
    outputs = detections(untrained, images)
    height, width = IMAGE_SIZE
    assert {name: (x.shape, x.dtype.name) for name, x in outputs.items()} == {
        "boxes": ((batch_size, 10, 4), "float32"),
        "scores": ((batch_size, 10), "float32"),
        "labels": ((batch_size, 10), "int32"),
        "num_detections": ((batch_size,), "int32"),
        "masks": ((batch_size, 10, 28, 28), "float32"),
    }
    assert outputs["num_detections"].min() > 0
    is_detection = np.arange(10) < outputs["num_detections"][:, None]
    scores, boxes = outputs["scores"], outputs["boxes"]
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (scores[is_detection] > 0.05).all()
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    assert (boxes[is_detection][:, 2:] > boxes[is_detection][:, :2]).all()
    assert np.isin(outputs["labels"][is_detection], [0, 1]).all()
    assert 0 <= outputs["masks"].min() < outputs["masks"].max() <= 1
    for name, padding in (("scores", 0), ("boxes", 0), ("labels", -1)):
        assert (outputs[name][~is_detection] == padding).all()


def test_batch_does_not_change_detections(untrained: Detector) -> None:
    images = blocks(4)[0]
    together = detections(untrained, images)
    alone = [detections(untrained, images[i : i + 1]) for i in range(4)]
    alone = {name: np.concatenate([x[name] for x in alone]) for name in together}
    assert_same_detections(alone, together, atol=1e-3)
    assert_same_detections(untrained.predict(images, verbose=0), together, atol=1e-3)


def test_masks_of_padding_are_zero() -> None:
    model = tiny_mask_rcnn(score_threshold=1.0)
    outputs = detections(model, blocks(2)[0])
    assert not outputs["num_detections"].any()
    assert not outputs["masks"].any()


@pytest.mark.parametrize("num_channels", [1, 4, 5])
@pytest.mark.parametrize("image_size", [(96, 64), (75, 101)])
def test_channels_and_sizes(image_size: tuple[int, int], num_channels: int) -> None:
    model = tiny_mask_rcnn(image_size, num_channels)
    assert (model.image_size, model.num_channels) == (image_size, num_channels)
    images, targets = blocks(2, image_size, num_channels)
    assert detections(model, images)["boxes"].shape == (2, 10, 4)
    assert np.isfinite(list(losses_of(model, images, targets).values())).all()


def test_attributes(untrained: Detector) -> None:
    assert untrained.class_names == CLASS_NAMES
    assert untrained.image_size == IMAGE_SIZE
    assert untrained.resize == "pad"
    assert untrained.num_channels == 3
    assert untrained.max_detections == 10


def test_faster_rcnn_has_no_masks() -> None:
    small = {key: value for key, value in SMALL.items() if key[:4] != "mask"}
    model = faster_rcnn(
        tiny_backbone(),
        normalization=None,
        class_names=["a"],
        image_size=IMAGE_SIZE,
        **small,
    )
    images, targets = blocks(2)
    assert "masks" not in detections(model, images)
    targets["gt_labels"] = np.minimum(targets["gt_labels"], 0)
    losses = losses_of(model, images, targets)
    assert sorted(losses) == sorted(["loss", *LOSSES[:-1]])
    with pytest.raises(TypeError, match=r"faster_rcnn has no masks.*mask_channels"):
        faster_rcnn(class_names=["a"], mask_channels=8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": []}, r"class_names must be .* class_names=\[\]"),
        ({"rpn_delta_weights": (1.0,)}, r"of dx, dy, dw and dh. Received: .*\(1.0,\)"),
        ({"class_names": "nucleus"}, "class_names='nucleus'"),
        ({"class_names": ["a", "a"]}, "different names"),
        ({"image_size": (64, 32)}, r"at least 64 pixels.*image_size=\(64, 32\)"),
        ({"image_size": (64.0, 64.0)}, "whole numbers"),
        ({"resize": "crop"}, "resize='crop'"),
        ({"anchor_sizes": (8, 16)}, r"anchor_sizes=\(8, 16\)"),
        ({"score_threshold": 1.5}, r"score_threshold must be in \[0, 1\].*1\.5"),
        ({"box_positive_fraction": -0.1}, r"box_positive_fraction=-0\.1"),
        ({"max_detections": 0}, "max_detections must be at least 1"),
        ({"rpn_post_nms_top_k": 0}, "rpn_post_nms_top_k=0"),
        ({"box_num_samples": 0}, "box_num_samples=0"),
        ({"pyramid_channels": 0}, "pyramid_channels=0"),
        ({"roi_align_mode": "max", "normalization": None}, "mode='max'"),
        ({"frozen_stages": 6}, r"in 0..5. Received: 6"),
        ({"normalization": "auto"}, "model object needs normalization"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_mask_rcnn(**({"backbone": tiny_backbone()} | arguments))


def test_unknown_argument() -> None:
    with pytest.raises(TypeError, match="score_treshold"):
        tiny_mask_rcnn(score_treshold=0.5)


# Compiling and fitting


def test_compile_takes_no_loss_and_no_metrics(untrained: Detector) -> None:
    with pytest.raises(ValueError, match=r"takes no loss=.*'mse'"):
        untrained.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match=r"takes no metrics=.*COCOMetrics"):
        untrained.compile("sgd", metrics=["accuracy"])


def test_weights_of_losses(tmp_path: Path) -> None:
    model = tiny_mask_rcnn()
    images, targets = blocks(2)
    plain = losses_of(model, images, targets)
    with pytest.raises(ValueError, match=r"factors of rpn_.*'mask': 2"):
        model.compile("sgd", loss_weights={"mask": 2})
    model.compile("sgd", run_eagerly=True, loss_weights={"mask_loss": 3.0})
    weighted = losses_of(model, images, targets)
    assert weighted["mask_loss"] == plain["mask_loss"]
    expected = plain["loss"] + 2 * plain["mask_loss"]
    assert weighted["loss"] == pytest.approx(expected, rel=1e-6)
    # Training goes on with them.
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loss = loaded.train_on_batch(images, targets, return_dict=True)
    parts = {name: float(loss[name]) for name in LOSSES}
    assert float(loss["loss"]) == pytest.approx(
        sum(parts.values()) + 2 * parts["mask_loss"], rel=1e-5
    )


def test_compile_without_arguments() -> None:
    model = tiny_mask_rcnn()
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.005)
    assert model.optimizer.momentum == 0.9
    assert model.jit_compile is False, "TensorFlow's kernels are faster on a CPU"


def test_first_losses_are_what_theory_says() -> None:
    """Without knowledge: log 2 of two, log 3 of two classes and background."""
    losses = losses_of(tiny_mask_rcnn(), *blocks(4))
    assert losses["rpn_objectness_loss"] == pytest.approx(np.log(2), abs=0.05)
    assert losses["class_loss"] == pytest.approx(np.log(3), abs=0.05)
    assert losses["mask_loss"] == pytest.approx(np.log(2), abs=0.05)
    assert losses["loss"] == pytest.approx(sum(losses[name] for name in LOSSES))


class Trained:
    """A model after two epochs in a graph, its history and its file."""

    def __init__(self, folder: Path) -> None:
        keras.utils.set_random_seed(0)
        self.images, self.targets = blocks()
        self.data = dataset(self.images, self.targets)
        self.model = that_detects(tiny_mask_rcnn())
        self.model.compile(keras.optimizers.SGD(0.005, momentum=0.9))
        self.path = folder / "model.keras"
        self.history = self.model.fit(
            self.data,
            validation_data=self.data,
            epochs=2,
            shuffle=False,
            verbose=0,
        ).history
        self.model.save(self.path)
        self.losses = self.evaluate(self.model)
        self.detections = detections(self.model, self.images)

    def evaluate(self, model: Detector) -> dict[str, float]:
        return model.evaluate(self.data, return_dict=True, verbose=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


def test_losses_are_named_metrics_with_twins(trained: Trained) -> None:
    names = ["loss", *LOSSES]
    assert set(trained.history) == {*names, *(f"val_{name}" for name in names)}
    for epoch in range(2):
        for prefix in ("", "val_"):
            parts = [trained.history[prefix + name][epoch] for name in LOSSES]
            assert all(np.isfinite(parts))
            total = trained.history[f"{prefix}loss"][epoch]
            assert total == pytest.approx(sum(parts), rel=1e-5)


def test_training_lowers_the_validation_loss(trained: Trained) -> None:
    first, last = trained.history["val_loss"]
    assert last < first


def test_evaluation_repeats(trained: Trained) -> None:
    again = trained.evaluate(trained.model)
    assert again == trained.losses
    for name, value in again.items():
        assert value == trained.history[f"val_{name}"][-1]


def test_saved_model_is_the_same_and_goes_on(trained: Trained) -> None:
    """Without custom_objects: outputs, losses, optimizer, and the next epoch."""
    loaded = keras.models.load_model(trained.path)
    assert type(loaded) is Detector
    assert loaded.class_names == CLASS_NAMES
    assert_same_detections(detections(loaded, trained.images), trained.detections)
    optimizer = trained.model.optimizer
    assert int(loaded.optimizer.iterations) == 4
    assert loaded.optimizer.get_config() == optimizer.get_config()
    states = zip(loaded.optimizer.variables, optimizer.variables, strict=True)
    for got, expected in states:
        np.testing.assert_array_equal(got.numpy(), expected.numpy())
    # As the uninterrupted run: the same anchors and regions are sampled.
    histories = [
        model.fit(trained.data, shuffle=False, verbose=0).history
        for model in (loaded, trained.model)
    ]
    for name, value in histories[1].items():
        assert histories[0][name] == pytest.approx(value, rel=1e-5)
    for got, expected in zip(loaded.weights, trained.model.weights, strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=1e-5)
    restored = keras.models.load_model(trained.path)
    trained.model.set_weights(restored.get_weights())


def test_model_loads_without_training_state(trained: Trained) -> None:
    loaded = keras.models.load_model(trained.path, compile=False)
    assert not loaded.compiled
    assert_same_detections(detections(loaded, trained.images), trained.detections)


def test_weights_alone(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    trained.model.save_weights(path)
    other = tiny_mask_rcnn()
    other.load_weights(path)
    assert_same_detections(detections(other, trained.images), trained.detections)


def test_same_weights_at_another_size(trained: Trained) -> None:
    size = (96, 128)
    resized = with_image_size(trained.model, size)
    assert (resized.image_size, trained.model.image_size) == (size, IMAGE_SIZE)
    assert resized.input_shape == (None, *size, 3)
    for got, expected in zip(resized.weights, trained.model.weights, strict=True):
        assert got.path == expected.path
        np.testing.assert_array_equal(got.numpy(), expected.numpy())
    # The original in the corner of a larger black canvas is found where it was.
    canvas = np.zeros((4, *size, 3), np.uint8)
    canvas[:, : IMAGE_SIZE[0], : IMAGE_SIZE[1]] = trained.images
    assert detections(resized, canvas)["num_detections"].min() > 0
    back = with_image_size(resized, IMAGE_SIZE)
    assert_same_detections(detections(back, trained.images), trained.detections)


def test_resized_model_does_not_share_weights(trained: Trained) -> None:
    resized = with_image_size(trained.model, (96, 128))
    resized.set_weights([0 * w for w in resized.get_weights()])
    assert_same_detections(
        detections(trained.model, trained.images), trained.detections
    )


def test_stock_callbacks(trained: Trained, tmp_path: Path) -> None:
    model = tiny_mask_rcnn()
    path = tmp_path / "best.keras"
    images, targets = trained.images[:2], trained.targets
    targets = {name: value[:2] for name, value in targets.items()}
    stop = keras.callbacks.EarlyStopping("val_mask_loss", 10, patience=1, mode="min")
    history = fit_eagerly(
        model,
        validation_data=(images, targets),
        epochs=4,
        callbacks=[
            stop,
            keras.callbacks.ModelCheckpoint(path, "val_loss", save_best_only=True),
            keras.callbacks.TerminateOnNaN(),
        ],
    )
    # The second epoch is not better by 10, so that it is the last.
    assert len(history["val_mask_loss"]) == 2
    best = keras.models.load_model(path)
    best.compile(run_eagerly=True)
    assert losses_of(best, images, targets)["loss"] == pytest.approx(
        min(history["val_loss"]), rel=1e-4
    )


# Configuration


NOT_DEFAULT: dict[str, Any] = {
    "normalization": ((100.0, 110.0, 120.0, 130.0), (50.0, 60.0, 70.0, 80.0)),
    "num_channels": 4,
    "frozen_stages": 3,
    "freeze_batch_norm": True,
    "batch_norm_epsilon": 1e-3,
    "stride_in_1x1": True,
    "pool_padding": "same",
    "head_batch_norm": True,
    "resize": "stretch",
    "pyramid_channels": 16,
    "anchor_sizes": (
        (8.0, 12.0),
        (16.0, 24.0),
        (32.0, 48.0),
        (64.0, 96.0),
        (9.0, 99.0),
    ),
    "anchor_aspect_ratios": (0.4, 2.5),
    "anchor_rounded": False,
    "anchor_strides": (3, 7, 15, 31, 63),
    "inclusive_boxes": True,
    "recompute_backbone": True,
    "rpn_channels": 24,
    "rpn_num_convs": 2,
    "rpn_num_samples": 32,
    "rpn_positive_fraction": 0.4,
    "rpn_positive_iou_threshold": 0.6,
    "rpn_negative_iou_threshold": 0.2,
    "rpn_pre_nms_top_k": 40,
    "rpn_post_nms_top_k": 30,
    "rpn_train_pre_nms_top_k": 60,
    "rpn_train_post_nms_top_k": 50,
    "rpn_nms_iou_threshold": 0.65,
    "rpn_per_level": False,
    "rpn_delta_weights": (2.0, 3.0, 4.0, 5.0),
    "rpn_loss_beta": 0.0,
    "roi_align_mode": "aligned",
    "roi_align_sampling_ratio": 1,
    "roi_canonical_size": 40.0,
    "box_hidden_dim": 24,
    "box_num_dense": 1,
    "box_num_convs": 1,
    "box_num_samples": 24,
    "box_positive_fraction": 0.5,
    "box_positive_iou_threshold": 0.6,
    "box_negative_iou_threshold": 0.4,
    "box_loss_beta": 0.5,
    "mean_box_losses": True,
    "mask_channels": 12,
    "mask_num_convs": 2,
    "score_threshold": 0.02,
    "nms_iou_threshold": 0.4,
    "max_detections": 7,
    "detection_pre_nms_top_k": 25,
    "best_class_only": True,
    "dtype": "mixed_bfloat16",
    "name": "mine",
}


def test_every_argument_survives_the_configuration(tmp_path: Path) -> None:
    """And each of them is heard: the model of the configuration computes the same."""
    import inspect
    import json

    from kvision.models.rcnn import build_rcnn

    parameters = inspect.signature(build_rcnn).parameters
    others = {"backbone", "class_names", "image_size", "masks", "weights"}
    assert set(NOT_DEFAULT) == set(parameters) - others
    for name, value in NOT_DEFAULT.items():
        assert value != parameters[name].default, f"{name} is its default"
    model = kvision.models.mask_rcnn(
        "mobilenet_v3_small",
        class_names=("a", "b", "c"),
        image_size=(64, 96),
        **NOT_DEFAULT,
    )
    config = json.loads(json.dumps(model.get_config()))
    for name, value in NOT_DEFAULT.items():
        assert config[name] == json.loads(json.dumps(value)), name
    assert config["class_names"] == ["a", "b", "c"]
    assert config["weights"] is None
    copy = Detector.from_config(config)
    assert json.loads(json.dumps(copy.get_config())) == config
    assert [w.path for w in copy.weights] == [w.path for w in model.weights]
    assert [w.shape for w in copy.weights] == [w.shape for w in model.weights]
    assert [w.path for w in copy.trainable_weights] == [
        w.path for w in model.trainable_weights
    ]
    for layer in model.layers:
        if type(layer).__module__.startswith("kvision.layers"):
            assert copy.get_layer(layer.name).get_config() == layer.get_config()


def test_builder_arguments_reach_the_layers() -> None:
    model = kvision.models.mask_rcnn(
        "mobilenet_v3_small", class_names=["a"], image_size=(64, 96), **NOT_DEFAULT
    )
    expected = {
        "pyramid": {"channels": 16},
        "anchors": {
            "aspect_ratios": [0.4, 2.5],
            "rounded": False,
            "strides": [3, 7, 15, 31, 63],
            "inclusive": True,
        },
        "rpn": {"num_anchors": 4, "channels": 24, "num_convs": 2},
        "proposals": {
            "pre_nms_top_k": 40,
            "post_nms_top_k": 30,
            "nms_iou_threshold": 0.65,
            "per_level": False,
        },
        "box_roi_align": {
            "mode": "aligned",
            "sampling_ratio": 1,
            "canonical_size": 40.0,
            "output_size": 7,
        },
        "mask_roi_align": {"mode": "aligned", "output_size": 14},
        "box_head": {"hidden_dim": 24, "num_dense": 1, "num_convs": 1},
        "mask_head": {"channels": 12, "num_convs": 2},
        "detections": {
            "score_threshold": 0.02,
            "nms_iou_threshold": 0.4,
            "max_detections": 7,
            "pre_nms_top_k": 25,
            "delta_weights": (10.0, 10.0, 5.0, 5.0),
            "best_class_only": True,
        },
        "pixel_boxes": {"image_size": (64, 96)},
    }
    for name, values in expected.items():
        config = model.get_layer(name).get_config()
        assert {key: config[key] for key in values} == values
    losses = model._compute_losses
    expected = {
        "anchor_targets": {
            "num_samples": 32,
            "positive_fraction": 0.4,
            "positive_iou_threshold": 0.6,
            "negative_iou_threshold": 0.2,
        },
        "proposals": {
            "pre_nms_top_k": 60,
            "post_nms_top_k": 50,
            "nms_iou_threshold": 0.65,
            "per_level": False,
        },
        "roi_targets": {
            "num_samples": 24,
            "positive_fraction": 0.5,
            "positive_iou_threshold": 0.6,
            "negative_iou_threshold": 0.4,
            "delta_weights": (10.0, 10.0, 5.0, 5.0),
        },
        "rpn_loss": {"beta": 0.0},
        "box_loss": {"beta": 0.5},
    }
    for name, values in expected.items():
        config = getattr(losses, name).get_config()
        assert {key: config[key] for key in values} == values


def test_backbone_object_is_saved_with_the_model(tmp_path: Path) -> None:
    model = that_detects(tiny_mask_rcnn(frozen_stages=2))
    images = blocks(2)[0]
    expected = detections(model, images)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_detections(detections(loaded, images), expected)
    trainable = [w.path for w in model.trainable_weights]
    assert [w.path for w in loaded.trainable_weights] == trainable
    assert not any("conv1" in path or "conv2" in path for path in trainable)


def test_one_backbone_object_in_two_models() -> None:
    backbone = tiny_backbone()
    for _ in range(2):
        model = tiny_mask_rcnn(backbone=backbone, normalization=None)
        assert len(detections(model, blocks(1)[0])) == 5
        Detector.from_config(model.get_config())


# Training, step by step


def test_frozen_stages_do_not_move() -> None:
    model = tiny_mask_rcnn(frozen_stages=2, freeze_batch_norm=True)
    before = {w.path: w.numpy() for w in model.weights}
    fit_eagerly(model, keras.optimizers.SGD(0.1))
    still = {w.path for w in model.weights if (w.numpy() == before[w.path]).all()}
    names = {path.split("/")[-2] for path in still}
    norms = {f"bn{i}" for i in range(1, 6)}
    # The 5th map of the pyramid and its lateral may get no gradient by chance.
    assert names - {"lateral_5", "output_5"} >= {"conv1", "conv2"} | norms
    assert not {"conv3", "conv4", "conv5", "lateral_2", "classes"} & names


def test_every_trainable_weight_gets_a_gradient() -> None:
    model = tiny_mask_rcnn(roi_canonical_size=8.0)
    before = [w.numpy() for w in model.trainable_weights]
    fit_eagerly(model, keras.optimizers.SGD(1.0), batch_size=4)
    unmoved = [
        w.path
        for w, old in zip(model.trainable_weights, before, strict=True)
        if (w.numpy() == old).all()
    ]
    assert unmoved == []


def test_ground_truth_is_inclusive_where_anchors_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A box of the whole image stays one, ends come nearer, padding stays padding."""
    seen = []
    match = kvision.layers.AnchorTargets.call

    def spied(self: Any, anchors: Any, gt_boxes: Any, *args: Any) -> Any:
        seen.append(to_numpy(gt_boxes))
        return match(self, anchors, gt_boxes, *args)

    monkeypatch.setattr(kvision.layers.AnchorTargets, "call", spied)
    images, targets = blocks(1)
    height, width = IMAGE_SIZE
    targets["gt_boxes"] = np.float32([[[0, 0, width, height], [8, 8, 40, 24], [0] * 4]])
    targets["gt_labels"] = np.int32([[0, 1, -1]])
    targets["gt_masks"] = targets["gt_masks"][:, :3]
    for inclusive_boxes in (False, True):
        model = tiny_mask_rcnn(inclusive_boxes=inclusive_boxes)
        losses = model._compute_losses(images, targets, np.int32(0), training=True)
        assert all(np.isfinite(value) for value in losses.values())
    x, y = width / (width - 1), height / (height - 1)
    expected = [[0, 0, width, height], [8 * x, 8 * y, 39 * x, 23 * y], [0] * 4]
    np.testing.assert_array_equal(seen[0], targets["gt_boxes"])
    np.testing.assert_allclose(seen[1][0], expected, rtol=1e-6)


def largest_step(model: Detector, optimizer: Any) -> float:
    before = [w.numpy() for w in model.trainable_weights]
    fit_eagerly(model, optimizer, batch_size=4)
    return max(
        float(np.linalg.norm(w.numpy() - old))
        for w, old in zip(model.trainable_weights, before, strict=True)
    )


def test_clipnorm() -> None:
    assert largest_step(tiny_mask_rcnn(), keras.optimizers.SGD(1.0)) > 1e-2
    clipped = keras.optimizers.SGD(1.0, clipnorm=1e-3)
    assert largest_step(tiny_mask_rcnn(), clipped) == pytest.approx(1e-3, rel=1e-3)


def test_average_of_weights() -> None:
    """After `fit` the weights are the running average, by hand."""
    model = tiny_mask_rcnn()
    weight, values = model.trainable_weights[0], []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: values.append(weight.numpy())
    )
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.6)
    fit_eagerly(model, optimizer, callbacks=[record])
    first, second = values
    assert np.abs(second - first).max() > 1e-4
    average = 0.6 * first + 0.4 * second  # Keras begins with the first step
    np.testing.assert_allclose(weight.numpy(), average, atol=1e-6)


def test_gradient_accumulation() -> None:
    """Two batches of two move the weights once, by the mean of their gradients."""
    images, targets = blocks()
    halves = [
        (images[i : i + 2], {name: value[i : i + 2] for name, value in targets.items()})
        for i in (0, 2)
    ]
    model = tiny_mask_rcnn(freeze_batch_norm=True)
    weights = model.get_weights()
    kernel = model.get_layer("box_head").denses[0].kernel

    def step_after(batches: list, optimizer: Any) -> np.ndarray:
        model.set_weights(weights)
        model.compile(optimizer, run_eagerly=True)
        for batch in batches:
            model.train_on_batch(*batch)
        return kernel.numpy() - start

    start = kernel.numpy()
    alone = [step_after([half], keras.optimizers.SGD(0.1)) for half in halves]
    twice = {"gradient_accumulation_steps": 2}
    assert not step_after(halves[:1], keras.optimizers.SGD(0.1, **twice)).any()
    together = step_after(halves, keras.optimizers.SGD(0.1, **twice))
    assert np.abs(together).max() > 1e-4
    np.testing.assert_allclose(together, (alone[0] + alone[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy: str) -> None:
    keras.utils.set_random_seed(1)
    full = that_detects(tiny_mask_rcnn())
    half = tiny_mask_rcnn(dtype=policy)
    half.set_weights(full.get_weights())
    assert half.get_layer("box_head").compute_dtype == policy[6:]
    images, targets = blocks()
    outputs = detections(half, images)
    for name in ("boxes", "scores", "masks"):
        assert outputs[name].dtype == np.float32
    expected = losses_of(full, images, targets)
    for name, value in losses_of(half, images, targets).items():
        assert value == pytest.approx(expected[name], rel=0.05, abs=0.01), name
    history = fit_eagerly(half, keras.optimizers.SGD(0.01))
    scaled = isinstance(half.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16"), "float16 gradients underflow"
    assert np.isfinite(list(history.values())).all()
    assert all(np.isfinite(w).all() for w in half.get_weights())
    assert {w.dtype for w in half.trainable_weights} == {"float32"}


def test_policy_of_the_user_is_taken_too() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny_mask_rcnn()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_config()["dtype"] == "mixed_bfloat16"
    assert (
        Detector.from_config(model.get_config()).dtype_policy.name == "mixed_bfloat16"
    )


def test_overflowing_step_is_skipped() -> None:
    model = tiny_mask_rcnn(dtype="mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**40
    )
    before = model.get_layer("rpn").objectness.kernel.numpy()
    fit_eagerly(model, optimizer, batch_size=4)
    np.testing.assert_array_equal(model.get_layer("rpn").objectness.kernel, before)
    assert float(optimizer.dynamic_scale) == 2.0**39
    assert int(optimizer.iterations) == 0


# Ground truth of any kind


def without_objects(targets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "gt_boxes": 0 * targets["gt_boxes"],
        "gt_labels": 0 * targets["gt_labels"] - 1,
        "gt_masks": 0 * targets["gt_masks"],
    }


def only_ignored(targets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return targets | {"gt_labels": 0 * targets["gt_labels"] - 1}


def ignored_everywhere(targets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Nothing can be sampled: neither anchors nor regions."""
    height, width = IMAGE_SIZE
    whole = np.zeros_like(targets["gt_boxes"])
    whole[:, 0] = [-500, -500, width + 500, height + 500]
    return targets | {"gt_boxes": whole, "gt_labels": 0 * targets["gt_labels"] - 1}


@pytest.mark.parametrize("change", [without_objects, only_ignored, ignored_everywhere])
def test_batch_without_objects(change: Callable) -> None:
    images, targets = blocks(2)
    targets = change(targets)
    model = tiny_mask_rcnn()
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    losses = model.train_on_batch(images, targets, return_dict=True)
    assert losses["box_loss"] == losses["mask_loss"] == losses["rpn_box_loss"] == 0
    nothing = change is ignored_everywhere
    for name in ("rpn_objectness_loss", "class_loss"):
        assert losses[name] == 0 if nothing else losses[name] > 0.1
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_dataset_without_any_row() -> None:
    images, targets = blocks(2)
    targets = {name: value[:, :0] for name, value in targets.items()}
    losses = losses_of(tiny_mask_rcnn(), images, targets)
    assert losses["loss"] == pytest.approx(np.log(2) + np.log(3), abs=0.1)


def test_more_padding_changes_nothing() -> None:
    images, targets = blocks(4)
    model = tiny_mask_rcnn()
    expected = losses_of(model, images, targets)

    def pad(rows: np.ndarray, value: int) -> np.ndarray:
        widths = [(0, 0), (0, 9)] + [(0, 0)] * (rows.ndim - 2)
        return np.pad(rows, widths, constant_values=value)

    padded = {n: pad(v, -1 if n == "gt_labels" else 0) for n, v in targets.items()}
    assert losses_of(model, images, padded) == pytest.approx(expected, rel=1e-6)


def test_types_of_ground_truth_do_not_matter() -> None:
    images, targets = blocks(2)
    model = tiny_mask_rcnn()
    expected = losses_of(model, images, targets)
    other = {
        "gt_boxes": targets["gt_boxes"].astype("float64"),
        "gt_labels": targets["gt_labels"].astype("int64"),
        "gt_masks": targets["gt_masks"].astype("float32"),
        "image_ids": np.arange(2),  # what else a dataset brings is left alone
    }
    got = losses_of(model, images.astype("float32"), other)
    assert got == pytest.approx(expected, rel=1e-6)


def test_order_of_objects_does_not_matter_to_a_full_sample() -> None:
    images, targets = blocks(4)
    model = tiny_mask_rcnn(
        rpn_num_samples=4000,
        rpn_positive_fraction=1.0,
        box_num_samples=200,
        box_positive_fraction=1.0,
    )
    expected = losses_of(model, images, targets)
    turned = {name: value[:, ::-1] for name, value in targets.items()}
    assert losses_of(model, images, turned) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (lambda x, t: (x,), "Received targets of type NoneType"),
        (lambda x, t: (x, {"boxes": t["gt_boxes"]}), r"with keys \['boxes'\]"),
        (lambda x, t: (x, t, np.ones(len(x))), "takes no sample_weight"),
        (
            lambda x, t: (x, {"gt_boxes": t["gt_boxes"], "gt_labels": t["gt_labels"]}),
            "targets have no gt_masks.*faster_rcnn",
        ),
        (lambda x, t: (x[:, :32], t), r"expected shape=\(None, 64, 96, 3\)"),
    ],
)
def test_batches_that_do_not_fit(batch: Callable, message: str) -> None:
    model = tiny_mask_rcnn()
    model.compile(run_eagerly=True)
    data = tf.data.Dataset.from_tensors(batch(*blocks(2)))
    with pytest.raises(ValueError, match=message):
        model.evaluate(data, verbose=0)


def test_rebuilt_keeps_the_weights() -> None:
    model = tiny_mask_rcnn()
    lighter = model.rebuilt(rpn_post_nms_top_k=7, score_threshold=0.3)
    assert lighter.get_config()["rpn_post_nms_top_k"] == 7
    assert lighter.get_config()["score_threshold"] == 0.3
    for one, other in zip(lighter.weights, model.weights, strict=True):
        assert one is not other
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="With class_names the weights have other"):
        model.rebuilt(class_names=[*CLASS_NAMES, "another"])
