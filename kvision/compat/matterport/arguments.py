"""From a `Config` to the arguments of `kvision.models.mask_rcnn`.

Every attribute of a `Config` is either followed, here or in training, or refused: a
script that sets what we cannot do must not run as if it had not. Attributes that
`Config` does not have are the script's own; they are named in a warning, since a
misspelt one looks alike.
"""

import difflib
import logging
import re
from typing import Any

import numpy as np

from kvision.compat.matterport.config import Config
from kvision.models.rcnn_conventions import MATTERPORT

__all__ = ["check_config", "loss_weights", "mask_cells", "mask_rcnn_arguments"]

_LOGGER = logging.getLogger("kvision")

# Attribute -> the only value that we can do, and what to do instead of another.
_FIXED: dict[str, tuple[Any, str]] = {
    "GPU_COUNT": (
        1,
        "Put the images of all devices into IMAGES_PER_GPU, or train "
        "kvision.models.mask_rcnn under tf.distribute.MirroredStrategy",
    ),
    "COMPUTE_BACKBONE_SHAPE": (
        None,
        "kvision.models.mask_rcnn takes a keras.Model as backbone",
    ),
    "BACKBONE_STRIDES": ([4, 8, 16, 32, 64], "They follow from the backbone"),
    "RPN_ANCHOR_STRIDE": (1, "Every cell has anchors"),
    "RPN_BBOX_STD_DEV": ([0.1, 0.1, 0.2, 0.2], "Weight the losses: LOSS_WEIGHTS"),
    "BBOX_STD_DEV": ([0.1, 0.1, 0.2, 0.2], "Weight the losses: LOSS_WEIGHTS"),
    "USE_RPN_ROIS": (True, "Regions of your own are not taken"),
    "IMAGE_CHANNEL_COUNT": (
        3,
        "kvision.models.mask_rcnn has num_channels, docs/own_data.md says how to "
        "feed it",
    ),
    "POOL_SIZE": (7, "The heads have this size"),
    "MASK_POOL_SIZE": (14, "The heads have this size"),
    "MASK_SHAPE": ([28, 28], "The heads have this size"),
    # Of version 1; since then "square" or "none" says it.
    "IMAGE_PADDING": (True, 'IMAGE_RESIZE_MODE = "none" pads nothing'),
}
_MODES = ("square", "pad64", "crop", "none")
_LOSSES = {
    "rpn_class_loss": "rpn_objectness_loss",
    "rpn_bbox_loss": "rpn_box_loss",
    "mrcnn_class_loss": "class_loss",
    "mrcnn_bbox_loss": "box_loss",
    "mrcnn_mask_loss": "mask_loss",
}
_WHOLE_MASK_CELLS = 112


def mask_rcnn_arguments(config: Config) -> dict[str, Any]:
    """Say with which arguments `kvision.models.mask_rcnn` is a configuration's model.

    Example: `kv.models.mask_rcnn(**mask_rcnn_arguments(config) | {"class_names":
    ["square", "circle", "triangle"]})`.

    Args:
        config: the configuration.

    Returns:
        Arguments by name. A configuration knows the number of classes only, so they
        are called "class 1", "class 2", ...

    Raises:
        ValueError: a value that cannot be followed.
    """
    check_config(config)
    height, width = (int(side) for side in config.IMAGE_SHAPE[:2])
    return {
        **MATTERPORT,
        "backbone": config.BACKBONE,
        "class_names": [f"class {label}" for label in range(1, config.NUM_CLASSES)],
        "image_size": (height, width),
        "freeze_batch_norm": config.TRAIN_BN is False,
        "normalization": ([float(mean) for mean in config.MEAN_PIXEL], 1.0),
        "pyramid_channels": config.TOP_DOWN_PYRAMID_SIZE,
        "anchor_sizes": [float(size) for size in config.RPN_ANCHOR_SCALES],
        # Ours are height / width.
        "anchor_aspect_ratios": [1 / ratio for ratio in config.RPN_ANCHOR_RATIOS],
        "rpn_num_samples": config.RPN_TRAIN_ANCHORS_PER_IMAGE,
        "rpn_nms_iou_threshold": config.RPN_NMS_THRESHOLD,
        "rpn_pre_nms_top_k": config.PRE_NMS_LIMIT,
        "rpn_train_pre_nms_top_k": config.PRE_NMS_LIMIT,
        "rpn_post_nms_top_k": config.POST_NMS_ROIS_INFERENCE,
        "rpn_train_post_nms_top_k": config.POST_NMS_ROIS_TRAINING,
        "box_hidden_dim": config.FPN_CLASSIF_FC_LAYERS_SIZE,
        "box_num_samples": config.TRAIN_ROIS_PER_IMAGE,
        "box_positive_fraction": config.ROI_POSITIVE_RATIO,
        "score_threshold": config.DETECTION_MIN_CONFIDENCE,
        "nms_iou_threshold": config.DETECTION_NMS_THRESHOLD,
        "max_detections": config.DETECTION_MAX_INSTANCES,
    }


def loss_weights(config: Config) -> dict[str, float]:
    """Return LOSS_WEIGHTS by our names of the losses.

    Args:
        config: the configuration.

    Returns:
        Weight of each loss; 1 where the configuration has none.

    Raises:
        ValueError: for a loss that there is not, or a weight below 0.
    """
    unknown = sorted(set(config.LOSS_WEIGHTS) - set(_LOSSES))
    if unknown:
        _refuse(config, "LOSS_WEIGHTS", f"weights of {', '.join(_LOSSES)}")
    weights = {_LOSSES[name]: float(w) for name, w in config.LOSS_WEIGHTS.items()}
    if any(not weight >= 0 for weight in weights.values()):
        _refuse(config, "LOSS_WEIGHTS", "weights of at least 0")
    return {name: weights.get(name, 1.0) for name in _LOSSES.values()}


def mask_cells(config: Config) -> int:
    """Return the cells along each side of the masks that training sees.

    They always travel as crops over their boxes. USE_MINI_MASK = False asks for more
    than MINI_MASK_SHAPE: it gets 112 x 112 cells, four times what the mask head learns
    along each side.

    Args:
        config: the configuration.

    Returns:
        Number of cells.
    """
    return int(config.MINI_MASK_SHAPE[0]) if config.USE_MINI_MASK else _WHOLE_MASK_CELLS


def check_config(config: Config) -> None:
    """Refuse what cannot be followed.

    Args:
        config: the configuration.

    Raises:
        ValueError: naming the attribute, what was expected, and what to do.
    """
    if not isinstance(config, Config):
        raise ValueError(
            "config must be an object of a class derived from "
            "kvision.compat.matterport.config.Config. Received: "
            + (f"the class {config.__name__}" if isinstance(config, type) else "")
            + ("" if isinstance(config, type) else f"a {type(config).__name__}")
        )
    if not hasattr(config, "BATCH_SIZE"):
        raise ValueError(
            f"{type(config).__name__}.__init__ must call super().__init__(), which "
            "makes BATCH_SIZE and IMAGE_SHAPE."
        )
    _warn_of_unknown(config)
    for name, (value, instead) in _FIXED.items():
        if not np.array_equal(getattr(config, name, value), value):
            _refuse(config, name, str(value), instead)
    _check_model(config)
    _check_images(config)
    _check_training(config)


def _check_model(config: Config) -> None:
    if not isinstance(config.NAME, str) or not re.fullmatch(r"[^/\\]+", config.NAME):
        _refuse(config, "NAME", "a text without slashes, for names of files")
    if config.BACKBONE not in ("resnet50", "resnet101"):
        _refuse(
            config,
            "BACKBONE",
            '"resnet50" or "resnet101"',
            "kvision.models.mask_rcnn takes other backbones",
        )
    if config.TRAIN_BN is True:
        _refuse(
            config,
            "TRAIN_BN",
            "False (constants) or None (trained)",
            "True uses statistics of the batch in inference too",
        )
    if np.shape(config.RPN_ANCHOR_SCALES) != (5,):
        _refuse(config, "RPN_ANCHOR_SCALES", "five numbers, for P2 to P6")
    if config.NUM_CLASSES < 2:
        _refuse(
            config, "NUM_CLASSES", "at least 2", "The background is one of the classes"
        )


def _check_images(config: Config) -> None:
    mode = config.IMAGE_RESIZE_MODE
    if mode not in _MODES:
        _refuse(config, "IMAGE_RESIZE_MODE", f"one of {', '.join(_MODES)}")
    if np.any(np.asarray(config.IMAGE_SHAPE[:2]) % 64):
        raise ValueError(
            "The input's side, IMAGE_MAX_DIM (IMAGE_MIN_DIM with the mode crop), must "
            "be a multiple of 64, such as 256, 320 or 384. Received: IMAGE_SHAPE="
            f"{list(config.IMAGE_SHAPE)}"
        )
    if mode == "square" and (config.IMAGE_MIN_DIM or 0) > config.IMAGE_MAX_DIM:
        _refuse(config, "IMAGE_MIN_DIM", f"at most {config.IMAGE_MAX_DIM=}")
    if mode == "pad64" and (config.IMAGE_MIN_DIM or 0) % 64:
        _refuse(config, "IMAGE_MIN_DIM", "a multiple of 64 with the mode pad64")
    if np.shape(config.MEAN_PIXEL) != (3,):
        _refuse(config, "MEAN_PIXEL", "three numbers, for red, green and blue")


def _check_training(config: Config) -> None:
    if config.TRAIN_ROIS_PER_IMAGE * config.ROI_POSITIVE_RATIO < 1:
        _refuse(
            config,
            "TRAIN_ROIS_PER_IMAGE",
            f"so many that ROI_POSITIVE_RATIO={config.ROI_POSITIVE_RATIO} of them is "
            "at least 1",
        )
    height, width = config.MINI_MASK_SHAPE
    if height != width or height < 1:
        _refuse(config, "MINI_MASK_SHAPE", "square, such as (56, 56)")
    for name in ("IMAGES_PER_GPU", "STEPS_PER_EPOCH", "VALIDATION_STEPS"):
        if getattr(config, name) < 1:
            _refuse(config, name, "at least 1")
    if config.WEIGHT_DECAY < 0:
        _refuse(config, "WEIGHT_DECAY", "at least 0")
    loss_weights(config)


def _warn_of_unknown(config: Config) -> None:
    known = {*dir(Config()), *_FIXED}
    for name in sorted(set(dir(config)) - known):
        if name.isupper() and not name.startswith("_"):
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            _LOGGER.warning(
                "%s.%s is no setting of MaskRCNN and changes nothing.%s",
                type(config).__name__,
                name,
                hint,
            )


def _refuse(config: Config, name: str, expected: str, instead: str = "") -> None:
    raise ValueError(
        f"{type(config).__name__}.{name} must be {expected}. Received: "
        f"{getattr(config, name)!r}." + (f" {instead}." if instead else "")
    )
