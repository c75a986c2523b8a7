"""`MaskRCNN`: training, going on, detecting; and what it refuses."""

import csv
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kvision as kv
from kvision.compat.matterport import model as modellib
from kvision.compat.matterport.arguments import mask_rcnn_arguments
from kvision.compat.matterport.layer_names import layer_names
from kvision.models.detector import Detector
from tests.compat.small import (
    HEADS,
    OneByOne,
    SmallConfig,
    Squares,
    with_settings,
    write_coco,
)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(autouse=True)
def detect_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "predict_on_batch", Detector.__call__)


FREE = {"WEIGHT_DECAY": 0.0, "GRADIENT_CLIP_NORM": None}


class Watch(keras.callbacks.Callback):
    """Keeps the names of layers that changed, epoch by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: list[set[str]] = []
        self.losses: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.before = [np.array(v) for v in self.model.weights]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        owners = layer_names(self.model)
        pairs = zip(self.before, self.model.weights, strict=True)
        self.changed.append(
            {owners[id(v)] for old, v in pairs if (old != np.array(v)).any()}
        )
        self.losses.append(logs["loss"])


class Trained:
    """One epoch of the heads, one of all layers, and the files of both."""

    def __init__(self, folder: Path) -> None:
        keras.utils.set_random_seed(0)
        self.folder = folder
        write_coco(folder / "mask_rcnn_coco.h5")
        self.train_set, self.val_set = Squares().fill(4), Squares().fill(2, seed=1)
        self.model = modellib.MaskRCNN("training", SmallConfig(), folder / "logs")
        self.report = self.model.load_weights(
            str(folder / "mask_rcnn_coco.h5"), by_name=True, exclude=HEADS
        )
        self.watch = Watch()
        for epochs, layers in ((1, "heads"), (2, "all")):
            self.history = self.model.train(
                self.train_set,
                self.val_set,
                learning_rate=0.002,
                epochs=epochs,
                layers=layers,
                custom_callbacks=[self.watch],
            )


@pytest.fixture(scope="module")
def trained(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def detecting(trained: Trained) -> modellib.MaskRCNN:
    model = modellib.MaskRCNN("inference", OneByOne(), trained.folder / "logs")
    model.load_weights(model.find_last(), by_name=True)
    # After so few steps all is background.
    model.keras_model.get_layer("box_head").classes.bias.assign([4.0, 4.0, 0.0])
    return model


def test_heads_then_all_layers(trained: Trained) -> None:
    heads, everything = trained.watch.changed
    assert heads
    assert all(n.startswith(("mrcnn_", "rpn_", "fpn_")) for n in heads)
    names = set(layer_names(trained.model.keras_model).values())
    # Normalisations are constants, and without a detection of a class no mask of it
    # has to be learnt.
    assert everything == {n for n in names if not n.startswith("bn")}


def test_files_of_a_run(trained: Trained) -> None:
    folder = Path(trained.model.log_dir)
    assert folder.parent == trained.folder / "logs"
    assert folder.name.startswith("squares20")
    assert sorted(path.name for path in folder.iterdir()) == [
        "log.csv",
        "mask_rcnn_squares_0001.h5",
        "mask_rcnn_squares_0002.h5",
    ]
    with open(folder / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"val_loss", "mask_loss"} <= rows[0].keys()
    assert trained.history.epoch == [1]
    assert trained.model.epoch == 2


def test_going_on(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    model = modellib.MaskRCNN("training", SmallConfig(), trained.folder / "logs")
    before = model.log_dir
    model.load_weights(model.find_last(), by_name=True)
    assert model.epoch == 2
    assert model.log_dir == trained.model.log_dir
    pairs = zip(
        model.keras_model.weights, trained.model.keras_model.weights, strict=True
    )
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)
    sets = trained.train_set, trained.val_set
    assert model.train(*sets, 0.001, epochs=2, layers="heads") is None
    assert "Nothing to train: 2 epochs are done" in capsys.readouterr().out
    model.set_log_dir("elsewhere.h5")
    assert model.epoch == 0
    assert Path(model.log_dir).parent == Path(before).parent


def test_detections(detecting: modellib.MaskRCNN, trained: Trained) -> None:
    for image_id in range(3):
        image = trained.train_set.load_image(image_id)
        (found,) = detecting.detect([image])
        number = len(found["scores"])
        assert number > 0, "there is no threshold"
        assert found["rois"].shape == (number, 4)
        assert found["rois"].dtype == np.int32
        assert found["class_ids"].shape == (number,)
        assert found["class_ids"].dtype == np.int32
        assert set(found["class_ids"]) <= {1, 2}
        assert (np.diff(found["scores"]) <= 0).all()
        assert found["masks"].shape == (*image.shape[:2], number)
        assert found["masks"].dtype == bool
        height, width = image.shape[:2]
        y1, x1, y2, x2 = found["rois"].T
        assert (y1 >= 0).all()
        assert (x1 >= 0).all()
        assert (y2 <= height).all()
        assert (x2 <= width).all()
        assert (y2 > y1).all()
        assert (x2 > x1).all()


def test_detections_are_those_of_the_detector(detecting: modellib.MaskRCNN) -> None:
    """On an image that needs no molding, `kvision.detect` says the same."""
    image = Squares().fill(1).load_image(0)
    (ours,) = detecting.detect([image])
    (theirs,) = kv.detect(detecting.keras_model, [image], score_threshold=0.0)
    assert len(ours["scores"]) == len(theirs) > 0
    np.testing.assert_allclose(ours["scores"], theirs.scores, rtol=1e-5)
    np.testing.assert_array_equal(ours["class_ids"], theirs.labels + 1)
    expected = np.rint(theirs.boxes)[:, [1, 0, 3, 2]]
    np.testing.assert_array_equal(ours["rois"], expected)


def test_what_detect_prints(
    detecting: modellib.MaskRCNN, capsys: pytest.CaptureFixture[str]
) -> None:
    detecting.detect([np.zeros((20, 30, 3), np.uint8)], verbose=1)
    printed = capsys.readouterr().out
    assert "Processing 1 images" in printed
    assert "(20, 30, 3)" in printed
    assert "(1, 64, 64, 3)" in printed
    modellib.log("nothing", np.zeros((0, 4)))
    assert "shape: (0, 4)" in capsys.readouterr().out


IMAGE = np.zeros((64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([IMAGE, IMAGE], r"BATCH_SIZE = .* = 1 images. Received: 2"),
        ([], "Received: 0"),
        ([IMAGE[..., 0]], r"image 0 of shape \(64, 64\) and uint8"),
        ([None], r"image 0 of shape \(\) and object"),
        ([IMAGE + np.nan], "image 0 from nan"),
        ([IMAGE - 1.0], r"image 0 from -1.0 .*no mold_image\(image\)"),
    ],
)
def test_images_that_detect_refuses(
    detecting: modellib.MaskRCNN, images: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        detecting.detect(images)


def test_modes(detecting: modellib.MaskRCNN, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='mode="training"'):
        detecting.train(trained.train_set, trained.val_set, 0.001, 9, "all")
    with pytest.raises(ValueError, match='mode="inference"'):
        trained.model.detect([IMAGE, IMAGE])
    with pytest.raises(ValueError, match=r'"training" or "inference". .*mode=.train.'):
        modellib.MaskRCNN("train", SmallConfig(), tmp_path)
    crop = with_settings(IMAGE_RESIZE_MODE="crop")
    with pytest.raises(ValueError, match=r'IMAGE_RESIZE_MODE="crop" is for training'):
        modellib.MaskRCNN("inference", crop, tmp_path)
    with pytest.raises(ValueError, match="GPU_COUNT must be 1"):
        modellib.MaskRCNN("training", with_settings(GPU_COUNT=2), tmp_path)
    assert not list(tmp_path.iterdir())


def test_images_of_other_sizes(detecting: modellib.MaskRCNN, tmp_path: Path) -> None:
    """With pad64 each size has a model of its own, with the same weights."""
    config = with_settings(OneByOne, IMAGE_RESIZE_MODE="pad64", IMAGE_MIN_DIM=None)
    model = modellib.MaskRCNN("inference", config, tmp_path)
    model.keras_model.set_weights(detecting.keras_model.get_weights())
    image = np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8)
    (found,) = model.detect([image])
    assert found["masks"].shape[:2] == (64, 128)
    resized = kv.models.with_image_size(detecting.keras_model, (64, 128))
    (theirs,) = kv.detect(resized, [image], score_threshold=0.0)
    np.testing.assert_allclose(found["scores"], theirs.scores, rtol=1e-5)
    # They follow later changes of the weights.
    bias = model.keras_model.get_layer("box_head").classes.bias
    bias.assign([-99.0, 99.0, -99.0])
    (found,) = model.detect([image])
    assert set(found["class_ids"]) == {2}
    with pytest.raises(ValueError, match=r"come to one size.*\(64, 64\), \(64, 128\)"):
        modellib._stacked([IMAGE, image])
    config = with_settings(OneByOne, IMAGE_RESIZE_MODE="none")
    model = modellib.MaskRCNN("inference", config, tmp_path)
    with pytest.raises(ValueError, match=r"multiples of 64 .* \(50, 64\).*pad64"):
        model.detect([IMAGE[:50]])


def test_errors_of_scripts_come_out_as_they_are(
    trained: Trained, tmp_path: Path
) -> None:
    class Faulty(Squares):
        def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
            masks, class_ids = super().load_mask(image_id)
            return masks, class_ids + (image_id == 1)

    model = trained.model
    log_dir, model.epoch, model.log_dir = model.log_dir, 0, str(tmp_path)
    try:
        with pytest.raises(ValueError, match=r"image 1 \(toys.1\) .*Received: \[3\]"):
            model.train(Faulty().fill(2), trained.val_set, 0.0, 1, "mrcnn_mask")
        with pytest.raises(ValueError, match="layers must be one of"):
            model.train(trained.train_set, trained.val_set, 0.0, 1, "head")
        with pytest.raises(ValueError, match="val_dataset has 0 images"):
            model.train(trained.train_set, Squares(), 0.0, 1, "heads")
    finally:
        model.epoch, model.log_dir = 2, log_dir


def compiled(trained: Trained, layers: str = "mrcnn_mask", **settings: Any) -> Any:
    """Give the detector as `train` compiles it."""
    model = modellib.MaskRCNN("training", with_settings(**settings), trained.folder)
    weights = trained.model.keras_model.get_weights()
    model.keras_model.set_weights(weights)
    model._compile({layers}, 0.01)
    return model.keras_model


def test_penalty_of_weights(trained: Trained) -> None:
    """WEIGHT_DECAY * mean(w ** 2) of each weight that learns."""
    model = compiled(trained, WEIGHT_DECAY=0.5)
    head = model.get_layer("mask_head")
    assert len(model.losses) == 2
    squares = [np.square(np.array(v)) for v in (head.class_kernel, head.class_bias)]
    expected = 0.5 * sum(values.mean() for values in squares)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-6)
    norm = compiled(trained, "bn5a_branch2a", WEIGHT_DECAY=0.5, TRAIN_BN=None)
    assert {v.name for v in norm.trainable_variables} == {"gamma", "beta"}
    assert not norm.losses


def test_optimizer(trained: Trained) -> None:
    model = compiled(trained, LEARNING_MOMENTUM=0.7, GRADIENT_CLIP_NORM=3.0)
    assert model.optimizer.momentum == 0.7
    assert model.optimizer.global_clipnorm == 3.0
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    assert compiled(trained, **FREE).optimizer.global_clipnorm is None


def test_weights_of_losses_act(trained: Trained) -> None:
    weights = {"mrcnn_mask_loss": 0.0, "rpn_class_loss": 5.0}
    model = compiled(trained, LOSS_WEIGHTS=weights, **FREE)
    config = model.get_compile_config()
    assert config["loss_weights"]["mask_loss"] == 0.0
    assert config["loss_weights"]["rpn_objectness_loss"] == 5.0
    assert config["loss_weights"]["box_loss"] == 1.0


def test_sources_without_augmentation(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def batches(source: Any, config: Any, augmentation: Any, first: int) -> Any:
        asked.append((augmentation, first))
        raise KeyboardInterrupt

    monkeypatch.setattr(modellib, "training_batches", batches)
    flip = [kv.data.HorizontalFlip()]
    for sources in (None, ["other"], ["other", "toys"]):
        with pytest.raises(KeyboardInterrupt):
            trained.model.train(
                trained.train_set,
                trained.val_set,
                0.01,
                9,
                "heads",
                augmentation=flip,
                no_augmentation_sources=sources,
            )
    assert asked == [(flip, 2), (flip, 2), (None, 2)]


def test_weights_go_to_plain_kvision(
    trained: Trained, detecting: modellib.MaskRCNN
) -> None:
    """As docs/from_matterport.md does it."""
    arguments = mask_rcnn_arguments(SmallConfig()) | {"class_names": ["square", "bar"]}
    model = kv.models.mask_rcnn(**arguments)
    last = Path(trained.model.log_dir) / "mask_rcnn_squares_0002.h5"
    report = kv.weights.load(model, last)
    assert len(report.matched) == len(model.weights)
    bias = detecting.keras_model.get_layer("box_head").classes.bias
    model.get_layer("box_head").classes.bias.assign(bias)
    image = trained.train_set.load_image(0)
    (found,) = kv.detect(model, [image], score_threshold=0.0)
    (before,) = kv.detect(detecting.keras_model, [image], score_threshold=0.0)
    np.testing.assert_allclose(found.boxes, before.boxes, atol=1e-3)
    assert set(found.names) <= {"square", "bar"}
