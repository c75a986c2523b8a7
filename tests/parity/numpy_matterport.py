"""matterport's Mask R-CNN in NumPy, on tensors with its names.

Source of the arithmetic: matterport/Mask_RCNN, mrcnn/model.py: resnet_graph, MaskRCNN,
build_rpn_model, ProposalLayer, PyramidROIAlign, fpn_classifier_graph,
build_fpn_mask_graph, refine_detections_graph; mrcnn/utils.py:
generate_pyramid_anchors, norm_boxes, denorm_boxes. Boxes here are (y1, x1, y2, x2),
relative to the image. The image fills the input: its window is all of it.
"""

import math
import string
from dataclasses import dataclass

import numpy as np

from tests.parity.numpy_rcnn import (
    convolve,
    doubled,
    max_pool,
    relu,
    sigmoid,
    softmax,
    suppressed,
    transposed_convolution,
)
from tests.parity.numpy_reference import crop_and_resize
from tests.parity.seeded import uniform

Array = np.ndarray
Levels = dict[int, Array]
Shapes = dict[str, tuple[int, ...]]

MEAN_PIXEL = np.array([123.7, 116.8, 103.9], np.float32)
STD_DEV = np.array([0.1, 0.1, 0.2, 0.2])
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
# Of layers inside the model that the file calls "rpn_model".
RPN = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")


@dataclass(frozen=True)
class Matterport:
    """Tensors by "layer/variable", and the size of the images."""

    tensors: dict[str, Array]
    image_size: tuple[int, int]
    depth: int = 50
    pre_nms_limit: int = 6000
    max_proposals: int = 1000

    def linear(self, x: Array, name: str, stride: int = 1, padding: int = 0) -> Array:
        kernel, bias = (self.tensors[f"{name}/{kind}"] for kind in ("kernel", "bias"))
        if kernel.ndim == 2:
            return x @ kernel + bias
        return convolve(x, kernel, stride, padding) + bias

    def normalised(self, x: Array, name: str) -> Array:
        gamma, beta, mean, variance = (self.tensors[f"{name}/{k}"] for k in STATISTICS)
        return gamma * (x - mean) / np.sqrt(variance + np.float32(1e-3)) + beta

    def backbone(self, image: Array) -> Levels:
        """C2 to C5 of an RGB image in 0-255."""
        x = image.astype(np.float32) - MEAN_PIXEL
        x = relu(self.normalised(self.linear(x, "conv1", 2, 3), "bn_conv1"))
        # "same" of TensorFlow for an even size: one cell more at the end.
        x = max_pool(x, ((0, 1), (0, 1)))
        stages = {}
        for level, count in enumerate(BLOCKS[self.depth], start=2):
            for i in range(count):
                stride = 2 if level > 2 and i == 0 else 1
                x = self.block(x, f"{level}{string.ascii_lowercase[i]}", i == 0, stride)
            stages[level] = x
        return stages

    def block(self, x: Array, name: str, projects: bool, stride: int) -> Array:
        def branch(x: Array, part: str, stride: int = 1, padding: int = 0) -> Array:
            x = self.linear(x, f"res{name}_branch{part}", stride, padding)
            return self.normalised(x, f"bn{name}_branch{part}")

        shortcut = branch(x, "1", stride) if projects else x
        x = relu(branch(x, "2a", stride))
        x = relu(branch(x, "2b", padding=1))
        return relu(branch(x, "2c") + shortcut)

    def pyramid(self, stages: Levels) -> Levels:
        maps: Levels = {}
        merged: Array = np.float32(0)
        for level in (5, 4, 3, 2):
            merged = self.linear(stages[level], f"fpn_c{level}p{level}") + merged
            maps[level] = self.linear(merged, f"fpn_p{level}", padding=1)
            merged = doubled(merged)
        maps[6] = maps[5][::2, ::2]
        return maps

    def rpn(self, x: Array) -> tuple[Array, Array]:
        """Probability of an object (N,) and deltas (N, 4) in (y, x, h, w)."""
        x = relu(self.linear(x, "rpn_conv_shared", padding=1))
        logits = self.linear(x, "rpn_class_raw").reshape(-1, 2)
        deltas = self.linear(x, "rpn_bbox_pred").reshape(-1, 4)
        return softmax(logits)[:, 1], deltas * STD_DEV

    def anchors(self, grid: tuple[int, int], level: int) -> Array:
        """One size, w / h of 0.5, 1 and 2, around the first pixel of each cell."""
        boxes = []
        for row in range(grid[0]):
            for column in range(grid[1]):
                for ratio in (0.5, 1.0, 2.0):
                    height = 8 * 2**level / math.sqrt(ratio)
                    width = 8 * 2**level * math.sqrt(ratio)
                    y, x = row * 2**level, column * 2**level
                    size = (height, width)
                    low = (y - 0.5 * height, x - 0.5 * width)
                    boxes.append([*low, *np.add(low, size)])
        return relative(np.array(boxes), self.image_size)

    def proposals(self, maps: Levels) -> Array:
        """The best anchors of all levels, moved and suppressed together."""
        levels = sorted(maps.items())
        scores, deltas = (
            np.concatenate(parts)
            for parts in zip(*(self.rpn(x) for _, x in levels), strict=True)
        )
        anchors = np.concatenate([self.anchors(x.shape[:2], n) for n, x in levels])
        best = np.argsort(-scores, kind="stable")[: self.pre_nms_limit]
        boxes = np.clip(_moved(anchors[best], deltas[best]), 0, 1)
        return boxes[suppressed(boxes, scores[best], 0.7, self.max_proposals)]

    def pooled(self, maps: Levels, rois: Array, cells: int) -> Array:
        """Pool from the level to which the size of a region is rounded."""
        found, area = [], float(np.prod(self.image_size))
        for roi in rois:
            height, width = roi[2:] - roi[:2]
            octaves = math.log2(math.sqrt(height * width) / (224 / math.sqrt(area)))
            level = min(5, max(2, 4 + round(octaves)))
            found.append(crop_and_resize(maps[level], roi, cells))
        return np.stack(found).astype(np.float32)

    def box_head(self, pooled: Array) -> tuple[Array, Array]:
        """Logits (N, K + 1), background first, and deltas (N, K + 1, 4)."""
        kernel = self.tensors["mrcnn_class_conv1/kernel"]
        x = np.einsum("nhwc,hwco->no", pooled, kernel, optimize=True)
        x = x + self.tensors["mrcnn_class_conv1/bias"]
        x = relu(self.normalised(x, "mrcnn_class_bn1"))
        x = x @ self.tensors["mrcnn_class_conv2/kernel"][0, 0]
        x = x + self.tensors["mrcnn_class_conv2/bias"]
        x = relu(self.normalised(x, "mrcnn_class_bn2"))
        deltas = self.linear(x, "mrcnn_bbox_fc")
        return self.linear(x, "mrcnn_class_logits"), deltas.reshape(len(x), -1, 4)

    def masks(self, pooled: Array) -> Array:
        """Probabilities (N, 28, 28, K + 1)."""
        # Keras keeps a transposed convolution's kernel as (h, w, outputs, inputs).
        kernel = self.tensors["mrcnn_mask_deconv/kernel"].transpose(0, 1, 3, 2)
        found = []
        for x in pooled:
            for i in range(1, 5):
                x = self.linear(x, f"mrcnn_mask_conv{i}", padding=1)
                x = relu(self.normalised(x, f"mrcnn_mask_bn{i}"))
            bias = self.tensors["mrcnn_mask_deconv/bias"]
            x = relu(transposed_convolution(x, kernel) + bias)
            found.append(sigmoid(self.linear(x, "mrcnn_mask")))
        return np.stack(found)


def relative(boxes: Array, image_size: tuple[int, int]) -> Array:
    """Pixels to relative boxes: the last pixel of the image is at 1."""
    height, width = image_size
    return (boxes - [0, 0, 1, 1]) / [height - 1, width - 1, height - 1, width - 1]


def absolute(boxes: Array, image_size: tuple[int, int]) -> Array:
    """Relative boxes to pixels, which are not rounded here."""
    height, width = image_size
    return boxes * [height - 1, width - 1, height - 1, width - 1] + [0, 0, 1, 1]


def detections(
    logits: Array, deltas: Array, rois: Array, min_confidence: float = 0.7
) -> tuple[Array, Array, Array]:
    """Boxes, scores and labels: the best class of each region, if it is confident."""
    scores = softmax(logits.astype(np.float64))
    labels = scores.argmax(1)
    rows = np.arange(len(rois))
    boxes = np.clip(_moved(rois, deltas[rows, labels] * STD_DEV), 0, 1)
    best = scores[rows, labels]
    kept: list[int] = []
    for label in set(labels) - {0}:
        of_class = np.flatnonzero((labels == label) & (best >= min_confidence))
        if len(of_class):
            chosen = suppressed(boxes[of_class], best[of_class], 0.3)
            kept += of_class[chosen].tolist()
    order = sorted(kept, key=lambda i: -best[i])[:100]
    return boxes[order], best[order], labels[order]


def _moved(boxes: Array, deltas: Array) -> Array:
    """Both (y, x, ...)."""
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + 0.5 * size + deltas[:, :2] * size
    size = size * np.exp(deltas[:, 2:])
    return np.concatenate([centre - 0.5 * size, centre + 0.5 * size], axis=1)


def shapes(blocks: tuple[int, ...], num_classes: int) -> Shapes:
    """Names and shapes of a file; classes without background."""
    found: Shapes = {}

    def linear(name: str, *shape: int) -> None:
        found[f"{name}/kernel"] = shape
        found[f"{name}/bias"] = (shape[2 if "deconv" in name else -1],)

    def norm(name: str, channels: int) -> None:
        found.update({f"{name}/{kind}": (channels,) for kind in STATISTICS})

    linear("conv1", 7, 7, 3, 64)
    norm("bn_conv1", 64)
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for i in range(count):
            name = f"{stage + 2}{string.ascii_lowercase[i]}_branch"
            parts = {
                "2a": (1, inputs, width),
                "2b": (3, width, width),
                "2c": (1, width, 4 * width),
            }
            if i == 0:
                parts["1"] = (1, inputs, 4 * width)
            for part, (size, before, after) in parts.items():
                linear(f"res{name}{part}", size, size, before, after)
                norm(f"bn{name}{part}", after)
            inputs = 4 * width
        level = stage + 2
        linear(f"fpn_c{level}p{level}", 1, 1, inputs, 256)
        linear(f"fpn_p{level}", 3, 3, 256, 256)
    linear("rpn_conv_shared", 3, 3, 256, 512)
    linear("rpn_class_raw", 1, 1, 512, 6)
    linear("rpn_bbox_pred", 1, 1, 512, 12)
    linear("mrcnn_class_conv1", 7, 7, 256, 1024)
    linear("mrcnn_class_conv2", 1, 1, 1024, 1024)
    for i in (1, 2):
        norm(f"mrcnn_class_bn{i}", 1024)
    linear("mrcnn_class_logits", 1024, num_classes + 1)
    linear("mrcnn_bbox_fc", 1024, 4 * (num_classes + 1))
    for i in range(1, 5):
        linear(f"mrcnn_mask_conv{i}", 3, 3, 256, 256)
        norm(f"mrcnn_mask_bn{i}", 256)
    linear("mrcnn_mask_deconv", 2, 2, 256, 256)
    linear("mrcnn_mask", 1, 1, 256, num_classes + 1)
    return found


# Standard deviation of kernels times sqrt(fan in); the rest has He's sqrt(2). Proposals
# come from several levels, and anchors of one suppress those of another.
GAIN = {
    "conv1/": 0.002,
    "fpn_c": 0.1,
    "fpn_p2": 1.0,
    "fpn_p3": 1.2,
    "fpn_p4": 1.6,
    "fpn_p5": 2.5,
    "res": 0.14,
    "rpn_bbox": 1.8,
    "mrcnn_class_logits": 11.0,  # classes that are sure of themselves
}


def weights_for(name: str, shape: tuple[int, ...]) -> Array:
    """Make one tensor; variances small enough for a wrong epsilon to show."""
    variance = 0.01 if name.startswith(("bn", "res", "conv1")) else 1.0
    deviation = math.sqrt(variance)
    ranges = {
        "gamma": (0.1, 0.3) if name.endswith("2c/gamma") else (0.7, 1.3),
        "beta": (-0.2, 0.2),
        "moving_mean": (-0.3 * deviation, 0.3 * deviation),
        "moving_variance": (0.4 * variance, 1.6 * variance),
        "bias": (-0.2 * deviation, 0.2 * deviation),
    }
    kind = name.rsplit("/", 1)[1]
    if kind != "kernel":
        return uniform(name, shape, *ranges[kind])
    gain = next((g for part, g in GAIN.items() if name.startswith(part)), math.sqrt(2))
    fan_in = shape[3] if "deconv" in name else math.prod(shape[:-1])
    limit = gain * math.sqrt(3 / fan_in)
    return uniform(name, shape, -limit, limit)
