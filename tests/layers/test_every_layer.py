"""Every public layer through the harness."""

import inspect
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kvision import layers
from tests.layers import token_cases, transformer_cases
from tests.layers.harness import BATCH, check_layer

IMAGE_SIZE = (64, 96)
RNG = np.random.default_rng(0)
SEED = np.int32(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def random_boxes(*shape: int) -> np.ndarray:
    """Boxes of 8 to 40 pixels inside the image."""
    height, width = IMAGE_SIZE
    size = RNG.uniform(8, 40, (*shape, 2))
    origin = RNG.uniform(0, 1, (*shape, 2)) * (np.array([width, height]) - size)
    return np.concatenate([origin, origin + size], -1).astype(np.float32)


def maps(prefix: str, levels: range, channels: int | None = 8) -> dict[str, np.ndarray]:
    """Feature maps of IMAGE_SIZE; without a number of channels every level differs."""
    height, width = IMAGE_SIZE
    return {
        f"{prefix}{level}": normal(
            BATCH, -(-height // 2**level), -(-width // 2**level), channels or level + 1
        )
        for level in levels
    }


ANCHORS = {"P2": random_boxes(384), "P3": random_boxes(96)}
JOINED_ANCHORS = np.concatenate([ANCHORS["P2"], ANCHORS["P3"]])
GT_LABELS = np.array([[0, 2, -1, -1], [1, -1, -1, -1], [-1, -1, -1, -1]], np.int32)
GT_BOXES = random_boxes(BATCH, 4)
GT_BOXES[:2, 3] = 0  # padding; the third rows, and the third image, are ignored regions
GT_MASKS = RNG.integers(0, 256, (BATCH, 4, 14, 14)).astype(np.uint8)
PROPOSALS = np.concatenate(
    [GT_BOXES + RNG.uniform(-2, 2, (BATCH, 4, 4)), random_boxes(BATCH, 20)], axis=1
).astype(np.float32)
IS_PROPOSAL = np.ones((BATCH, 24), bool)
IS_PROPOSAL[:, -3:] = False
# Sides of 10, 20 and 40 pixels.
ROIS_OF_THREE_LEVELS = np.tile(
    np.float32([[5, 7, 15, 17], [33, 21, 53, 41], [50, 12, 90, 52]]), (BATCH, 1, 1)
)

ANCHOR_TARGETS = {
    "indices": RNG.integers(0, 480, (BATCH, 8)).astype(np.int32),
    "objectness": np.tile(np.float32([1, 1, 0, 0, 0, 0, 0, 0]), (BATCH, 1)),
    "deltas": normal(BATCH, 8, 4),
    "weights": np.tile(np.float32([1, 1, 1, 1, 1, 1, 0, 0]), (BATCH, 1)),
    "box_weights": np.tile(np.float32([1, 1, 0, 0, 0, 0, 0, 0]), (BATCH, 1)),
}
ROI_TARGETS = {
    "rois": random_boxes(BATCH, 8),
    "labels": np.tile(np.int32([0, 2, 1, 3, 3, 3, 3, 3]), (BATCH, 1)),
    "deltas": normal(BATCH, 8, 4),
    "gt_indices": np.tile(np.int32([0, 1, 1, 0, 0, 0, 0, 0]), (BATCH, 1)),
    "weights": np.tile(np.float32([1, 1, 1, 1, 1, 1, 0, 0]), (BATCH, 1)),
    "box_weights": np.tile(np.float32([1, 1, 1, 0, 0, 0, 0, 0]), (BATCH, 1)),
}


def only_positives(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Order what `MaskTargets` lists: graphs and XLA leave different empty slots."""
    used = np.flatnonzero(outputs["weights"])
    rows = used[np.lexsort(outputs["rois"][used].T)]
    return {name: values[rows] for name, values in outputs.items()}


# Layer, a non-default value for each argument, inputs, keyword arguments of the check.
CASES: list[tuple[type[keras.layers.Layer], dict, tuple, dict[str, Any]]] = [
    (
        layers.ImageNormalization,
        {"mean": [1.0, 2.0, 3.0], "std": [50.0, 60.0, 70.0], "reverse_channels": True},
        (RNG.uniform(0, 255, (BATCH, 6, 5, 3)).astype(np.float32),),
        {"gradients_to": (0,)},
    ),
    (
        layers.FrozenBatchNormalization,
        {"epsilon": 1e-2},
        (normal(BATCH, 4, 5, 6),),
        {"gradients_to": (0,)},
    ),
    (
        layers.FeaturePyramid,
        {"channels": 8, "batch_norm": True},
        (maps("C", range(2, 6), channels=None),),
        {"gradients_to": (0,)},
    ),
    (
        layers.RPN,
        {"num_anchors": 2, "channels": 6, "num_convs": 2},
        (maps("P", range(2, 5)),),
        {"gradients_to": (0,)},
    ),
    (
        layers.Anchors,
        {
            "image_size": IMAGE_SIZE,
            "sizes": [[8.0, 12.0], [16.0]],
            "aspect_ratios": [0.6, 1.5],
            "rounded": False,
            "strides": [5, 7],
            "inclusive": True,
        },
        (maps("P", range(2, 4)),),
        {"always_float32": True},
    ),
    (
        layers.ProposalSelection,
        {
            "image_size": IMAGE_SIZE,
            "pre_nms_top_k": 100,
            "post_nms_top_k": 20,
            "nms_iou_threshold": 0.6,
            "min_size": 2.0,
            "per_level": False,
            "delta_weights": (9.0, 8.0, 4.0, 3.0),
        },
        (
            {"P2": normal(BATCH, 384), "P3": normal(BATCH, 96)},
            {"P2": normal(BATCH, 384, 4), "P3": normal(BATCH, 96, 4)},
            ANCHORS,
        ),
        {"always_float32": True, "no_gradients_to": (0, 1)},
    ),
    (
        layers.ROIAlign,
        {
            "image_size": IMAGE_SIZE,
            "output_size": 3,
            "sampling_ratio": 3,
            "mode": "aligned",
            "canonical_level": 3,
            "canonical_size": 17.0,
        },
        (maps("P", range(2, 5)), ROIS_OF_THREE_LEVELS),
        {"gradients_to": (0,), "no_gradients_to": (1,)},
    ),
    (
        layers.BoxHead,
        {
            "num_classes": 3,
            "hidden_dim": 12,
            "num_dense": 3,
            "num_convs": 2,
            "conv_channels": 6,
            "batch_norm": True,
        },
        (normal(BATCH, 5, 4, 4, 8),),
        {"gradients_to": (0,)},
    ),
    (
        layers.MaskHead,
        {"num_classes": 3, "channels": 6, "num_convs": 2, "batch_norm": True},
        (
            normal(BATCH, 5, 4, 4, 8),
            np.tile(np.int32([-1, 0, 1, 2, 9]), (BATCH, 1)),
        ),
        {"gradients_to": (0,)},
    ),
    (
        layers.DetectionSelection,
        {
            "image_size": IMAGE_SIZE,
            "score_threshold": 0.1,
            "nms_iou_threshold": 0.4,
            "max_detections": 12,
            "pre_nms_top_k": 50,
            "min_size": 2.0,
            "delta_weights": (9.0, 8.0, 4.0, 3.0),
            "best_class_only": True,
        },
        (normal(BATCH, 24, 4), normal(BATCH, 24, 3, 4), PROPOSALS, IS_PROPOSAL),
        {"always_float32": True, "gradients_to": (0, 1)},
    ),
    (
        layers.PixelBoxes,
        {"image_size": IMAGE_SIZE},
        (PROPOSALS[:, :4], np.tile(np.int32([2, 0, -1, -1]), (BATCH, 1))),
        {"always_float32": True, "gradients_to": (0,)},
    ),
    (
        layers.MaskScores,
        {},
        (normal(BATCH, 4, 6, 6), np.tile(np.int32([2, 0, -1, -1]), (BATCH, 1))),
        {"always_float32": True, "gradients_to": (0,)},
    ),
    (
        layers.AnchorTargets,
        {
            "num_samples": 32,
            "positive_fraction": 0.25,
            "positive_iou_threshold": 0.6,
            "negative_iou_threshold": 0.2,
            "delta_weights": (9.0, 8.0, 4.0, 3.0),
        },
        (JOINED_ANCHORS, GT_BOXES, GT_LABELS, SEED),
        {"always_float32": True},
    ),
    (
        layers.ROITargets,
        {
            "num_classes": 3,
            "num_samples": 16,
            "positive_fraction": 0.5,
            "positive_iou_threshold": 0.6,
            "negative_iou_threshold": 0.4,
            "delta_weights": (9.0, 8.0, 4.0, 3.0),
        },
        (PROPOSALS, IS_PROPOSAL, GT_BOXES, GT_LABELS, SEED),
        {"always_float32": True, "no_gradients_to": (0,)},
    ),
    (
        layers.MaskTargets,
        {"max_positives": 4, "mask_size": 7},
        (ROI_TARGETS, GT_BOXES, GT_MASKS),
        {"always_float32": True, "comparable": only_positives},
    ),
    (
        layers.RPNLoss,
        {"beta": 0.5, "mean_of_positives": True},
        (normal(BATCH, 480), normal(BATCH, 480, 4), ANCHOR_TARGETS),
        {"always_float32": True, "gradients_to": (0, 1)},
    ),
    (
        layers.BoxLoss,
        {"beta": 0.5, "mean_of_positives": True},
        (normal(BATCH, 8, 4), normal(BATCH, 8, 3, 4), ROI_TARGETS),
        {"always_float32": True, "gradients_to": (0, 1)},
    ),
    (
        layers.MaskLoss,
        {},
        (
            normal(9, 14, 14),
            {
                "masks": RNG.uniform(size=(9, 14, 14)).astype(np.float32),
                "weights": np.float32([1, 1, 1, 1, 1, 1, 0, 0, 0]),
            },
        ),
        {"always_float32": True, "gradients_to": (0,)},
    ),
    *transformer_cases.CASES,
    *token_cases.CASES,
    (
        layers.WindowAttention,
        {
            "num_heads": 2,
            "window_size": 4,
            "use_bias": False,
            "attention_dropout": 0.1,
            "dropout": 0.1,
        },
        (normal(BATCH, 6, 8, 8),),
        {"gradients_to": (0,)},
    ),
    (
        layers.SubsampledAttention,
        {
            "num_heads": 2,
            "reduction": 4,
            "use_bias": False,
            "epsilon": 1e-3,
            "attention_dropout": 0.1,
            "dropout": 0.1,
        },
        (normal(BATCH, 6, 8, 8),),
        {"gradients_to": (0,)},
    ),
]


@pytest.mark.parametrize(
    ("layer_class", "arguments", "inputs", "options"),
    CASES,
    ids=[case[0].__name__ for case in CASES],
)
def test_layer(
    layer_class: type[keras.layers.Layer],
    arguments: dict,
    inputs: tuple,
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    check_layer(layer_class, arguments, inputs, folder=tmp_path, **options)


def test_no_layer_is_missing() -> None:
    defined = {
        name
        for module in vars(layers).values()
        if inspect.ismodule(module)
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, keras.layers.Layer)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }
    assert set(layers.__all__) == defined
    assert {case[0].__name__ for case in CASES} == defined
