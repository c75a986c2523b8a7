"""Every attribute of a configuration is followed or refused."""

import logging
from typing import Any

import numpy as np
import pytest

import kvision as kv
from kvision.compat.matterport.arguments import (
    check_config,
    loss_weights,
    mask_cells,
    mask_rcnn_arguments,
)
from kvision.compat.matterport.config import Config
from tests.compat.small import SmallConfig, with_settings

# Attribute -> another value, and the arguments of the model that it decides.
FOLLOWED: dict[str, tuple[Any, dict[str, Any]]] = {
    "NUM_CLASSES": (2, {"class_names": ["class 1"]}),
    "BACKBONE": ("resnet101", {"backbone": "resnet101"}),
    "TRAIN_BN": (None, {"freeze_batch_norm": False}),
    "FPN_CLASSIF_FC_LAYERS_SIZE": (96, {"box_hidden_dim": 96}),
    "TOP_DOWN_PYRAMID_SIZE": (64, {"pyramid_channels": 64}),
    "RPN_ANCHOR_SCALES": ((4, 8, 16, 32, 64), {"anchor_sizes": [4, 8, 16, 32, 64]}),
    "RPN_ANCHOR_RATIOS": ([0.25, 1], {"anchor_aspect_ratios": [4, 1]}),
    "RPN_NMS_THRESHOLD": (0.9, {"rpn_nms_iou_threshold": 0.9}),
    "RPN_TRAIN_ANCHORS_PER_IMAGE": (32, {"rpn_num_samples": 32}),
    "PRE_NMS_LIMIT": (
        99,
        {"rpn_pre_nms_top_k": 99, "rpn_train_pre_nms_top_k": 99},
    ),
    "POST_NMS_ROIS_TRAINING": (98, {"rpn_train_post_nms_top_k": 98}),
    "POST_NMS_ROIS_INFERENCE": (97, {"rpn_post_nms_top_k": 97}),
    "IMAGE_MAX_DIM": (128, {"image_size": (128, 128)}),
    "MEAN_PIXEL": ([1, 2, 3], {"normalization": ([1.0, 2.0, 3.0], 1.0)}),
    "TRAIN_ROIS_PER_IMAGE": (12, {"box_num_samples": 12}),
    "ROI_POSITIVE_RATIO": (0.5, {"box_positive_fraction": 0.5}),
    "DETECTION_MAX_INSTANCES": (9, {"max_detections": 9}),
    "DETECTION_MIN_CONFIDENCE": (0.6, {"score_threshold": 0.6}),
    "DETECTION_NMS_THRESHOLD": (0.4, {"nms_iou_threshold": 0.4}),
}
# Attribute -> a value that cannot be followed.
REFUSED: dict[str, Any] = {
    "NAME": None,
    "GPU_COUNT": 2,
    "IMAGES_PER_GPU": 0,
    "STEPS_PER_EPOCH": 0,
    "VALIDATION_STEPS": 0,
    "BACKBONE": print,
    "COMPUTE_BACKBONE_SHAPE": print,
    "BACKBONE_STRIDES": [4, 8, 16, 32],
    "TRAIN_BN": True,
    "NUM_CLASSES": 1,
    "RPN_ANCHOR_SCALES": (8, 16),
    "RPN_ANCHOR_STRIDE": 2,
    "RPN_BBOX_STD_DEV": np.array([0.1, 0.1, 0.1, 0.1]),
    "USE_RPN_ROIS": False,
    "IMAGE_RESIZE_MODE": "stretch",
    "IMAGE_MIN_DIM": 128,
    "IMAGE_MAX_DIM": 100,
    "IMAGE_CHANNEL_COUNT": 4,
    "IMAGE_PADDING": False,
    "MEAN_PIXEL": [1, 2],
    "MINI_MASK_SHAPE": (56, 28),
    "TRAIN_ROIS_PER_IMAGE": 2,
    "POOL_SIZE": 14,
    "MASK_POOL_SIZE": 7,
    "MASK_SHAPE": [56, 56],
    "BBOX_STD_DEV": np.array([0.1, 0.1, 0.1, 0.1]),
    "WEIGHT_DECAY": -1,
    "LOSS_WEIGHTS": {"mask_loss": 2.0},
}
# Followed elsewhere: in training, by the molding of images, in the tests of these.
IN_TRAINING = {
    "GRADIENT_CLIP_NORM",
    "IMAGE_MIN_SCALE",
    "LEARNING_MOMENTUM",
    "LEARNING_RATE",
    "MAX_GT_INSTANCES",
    "USE_MINI_MASK",
}


def test_no_attribute_is_forgotten() -> None:
    known = {name for name in vars(Config) if name.isupper()}
    assert known - IN_TRAINING == (FOLLOWED.keys() | REFUSED.keys()) & known


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed(name: str) -> None:
    value, expected = FOLLOWED[name]
    arguments = mask_rcnn_arguments(with_settings(**{name: value}))
    before = mask_rcnn_arguments(SmallConfig())
    changed = {key for key in arguments if arguments[key] != before[key]}
    assert changed == set(expected)
    assert {key: arguments[key] for key in expected} == expected


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*must be .*Received"):
        check_config(with_settings(**{name: REFUSED[name]}))


def test_names_of_files() -> None:
    check_config(with_settings(NAME="My shapes, 2"))
    for name in ("", "a/b", "a\\b", 7):
        with pytest.raises(ValueError, match="NAME must be a text without slashes"):
            check_config(with_settings(NAME=name))


def test_values_are_told() -> None:
    with pytest.raises(ValueError, match=r"Changed.GPU_COUNT must be 1. Received: 2."):
        check_config(with_settings(GPU_COUNT=2))
    with pytest.raises(ValueError, match="Received: the class SmallConfig"):
        check_config(SmallConfig)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 0"):
        loss_weights(with_settings(LOSS_WEIGHTS={"mrcnn_mask_loss": -1.0}))


def test_constructor_that_forgets_its_base() -> None:
    class Forgets(SmallConfig):
        def __init__(self) -> None:
            self.STEPS_PER_EPOCH = 7

    with pytest.raises(ValueError, match=r"must call super\(\).__init__"):
        check_config(Forgets())


def test_attributes_that_there_are_not_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "kvision"):
        check_config(with_settings(DETECTION_MIN_CONFIDENSE=0.9, MY_OWN=1, mine=2))
    assert len(caplog.messages) == 2
    assert "Did you mean DETECTION_MIN_CONFIDENCE?" in caplog.messages[0]
    assert "MY_OWN is no setting" in caplog.messages[1]


def test_weights_of_losses_have_our_names() -> None:
    config = with_settings(LOSS_WEIGHTS={"mrcnn_mask_loss": 3, "rpn_class_loss": 0})
    assert loss_weights(config) == {
        "rpn_objectness_loss": 0.0,
        "rpn_box_loss": 1.0,
        "class_loss": 1.0,
        "box_loss": 1.0,
        "mask_loss": 3.0,
    }


def test_masks_travel_as_crops() -> None:
    assert mask_cells(with_settings(MINI_MASK_SHAPE=(28, 28))) == 28
    assert mask_cells(with_settings(USE_MINI_MASK=False)) == 112


def test_computed_attributes() -> None:
    config = with_settings(IMAGES_PER_GPU=3, IMAGE_RESIZE_MODE="crop", NUM_CLASSES=5)
    assert config.BATCH_SIZE == 3
    assert config.IMAGE_SHAPE.tolist() == [64, 64, 3]
    assert config.IMAGE_META_SIZE == 17
    cropped = with_settings(
        IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=128, IMAGE_MAX_DIM=256
    )
    assert cropped.IMAGE_SHAPE.tolist() == [128, 128, 3]


def test_display_prints_each_attribute(capsys: pytest.CaptureFixture[str]) -> None:
    SmallConfig().display()
    printed = capsys.readouterr().out
    assert "BATCH_SIZE                     2\n" in printed
    assert "IMAGE_SHAPE                    [64 64  3]\n" in printed
    assert "display" not in printed


def test_arguments_build_the_model_with_names(quick: None) -> None:
    """As docs/from_matterport.md shows it."""
    arguments = mask_rcnn_arguments(SmallConfig())
    names = ["square", "bar"]
    model = kv.models.mask_rcnn(**arguments | {"class_names": names})
    assert model.class_names == names
    assert model.image_size == (64, 64)
