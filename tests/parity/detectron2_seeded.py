"""Tensors of a detectron2 checkpoint, made from their names."""

import math

import numpy as np

from tests.parity.seeded import NORM_VARIANCE, uniform

Array = np.ndarray

# Standard deviation of weights times sqrt(fan in); the rest has He's sqrt(2).
GAIN = {
    "stem": 0.002,  # its input has a deviation of about 60
    "bottom_up": math.sqrt(2 * NORM_VARIANCE),
    "fpn_lateral": 0.1,
    "fpn_output": 1.0,
    "objectness": 2.0,
    "anchor_deltas": 0.3,
    "box_head": 2.0,
    "cls_score": 3.0,
    "bbox_pred": 1.0,
    "mask_head.predictor": 4.0,
}
NORM = {
    "running_mean": (-0.3 * math.sqrt(NORM_VARIANCE), 0.3 * math.sqrt(NORM_VARIANCE)),
    "running_var": (0.4 * NORM_VARIANCE, 1.6 * NORM_VARIANCE),
    "weight": (0.7, 1.3),
    "bias": (-0.2, 0.2),
}


def shapes(blocks: tuple[int, ...], num_classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Mask R-CNN of the zoo: 307 tensors on ResNet-50."""
    found: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, inputs: int, outputs: int, size: int) -> None:
        found[f"{name}.weight"] = (outputs, inputs, size, size)

    def normalised(name: str, inputs: int, outputs: int, size: int) -> None:
        convolution(name, inputs, outputs, size)
        found.update({f"{name}.norm.{kind}": (outputs,) for kind in NORM})

    def biased(name: str, *shape: int) -> None:
        found[f"{name}.weight"] = shape
        found[f"{name}.bias"] = (shape[1 if "deconv" in name else 0],)

    normalised("backbone.bottom_up.stem.conv1", 3, 64, 7)
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            name = f"backbone.bottom_up.res{stage + 2}.{block}"
            if block == 0:
                normalised(f"{name}.shortcut", inputs, 4 * width, 1)
            normalised(f"{name}.conv1", inputs, width, 1)
            normalised(f"{name}.conv2", width, width, 3)
            normalised(f"{name}.conv3", width, 4 * width, 1)
            inputs = 4 * width
        biased(f"backbone.fpn_lateral{stage + 2}", 256, inputs, 1, 1)
        biased(f"backbone.fpn_output{stage + 2}", 256, 256, 3, 3)
    rpn = "proposal_generator.rpn_head"
    biased(f"{rpn}.conv", 256, 256, 3, 3)
    biased(f"{rpn}.objectness_logits", 3, 256, 1, 1)
    biased(f"{rpn}.anchor_deltas", 12, 256, 1, 1)
    biased("roi_heads.box_head.fc1", 1024, 256 * 7 * 7)
    biased("roi_heads.box_head.fc2", 1024, 1024)
    biased("roi_heads.box_predictor.cls_score", num_classes + 1, 1024)
    biased("roi_heads.box_predictor.bbox_pred", 4 * num_classes, 1024)
    for i in range(1, 5):
        biased(f"roi_heads.mask_head.mask_fcn{i}", 256, 256, 3, 3)
    biased("roi_heads.mask_head.deconv", 256, 256, 2, 2)
    biased("roi_heads.mask_head.predictor", num_classes, 256, 1, 1)
    return found


def weights_for(name: str, shape: tuple[int, ...]) -> Array:
    """Make one tensor: a pure function of the name."""
    kind = name.rsplit(".", 1)[1]
    if len(shape) == 1:
        low, high = NORM[kind]
        if name.endswith("conv3.norm.weight"):  # small where a block joins its shortcut
            low, high = 0.1, 0.3
        if name.endswith("fc2.bias"):  # sparse units, so that regions differ
            low, high = -0.9, -0.3
        return uniform(name, shape, low, high)
    gain = next((g for part, g in GAIN.items() if part in name), math.sqrt(2))
    fan_in = shape[0] if "deconv" in name else math.prod(shape[1:])
    limit = gain * math.sqrt(3 / fan_in)
    return uniform(name, shape, -limit, limit)
