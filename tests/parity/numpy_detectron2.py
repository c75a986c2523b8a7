"""detectron2's Mask R-CNN with a pyramid, in NumPy, on tensors with detectron2's names.

Source of the arithmetic: detectron2, modeling/backbone/resnet.py (BottleneckBlock with
STRIDE_IN_1X1), fpn.py, anchor_generator.py, proposal_generator/proposal_utils.py,
poolers.py, roi_heads/fast_rcnn.py and mask_head.py. ROIAlign has as many samples as a
bin has cells (POOLER_SAMPLING_RATIO 0).
"""

from dataclasses import dataclass

import numpy as np

from tests.parity.numpy_rcnn import (
    clipped,
    convolve,
    doubled,
    max_pool,
    moved,
    pooled,
    relu,
    sigmoid,
    softmax,
    suppressed,
    transposed_convolution,
)

Array = np.ndarray
Levels = dict[int, Array]

PIXEL_MEAN_BGR = np.array([103.530, 116.280, 123.675], np.float32)
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
MIN_NORM = 1e-5  # added to the variance


@dataclass(frozen=True)
class Detectron2:
    """Tensors by name, and the size of the images."""

    tensors: dict[str, Array]
    image_size: tuple[int, int]
    depth: int = 50
    max_proposals: int = 1000

    def convolution(
        self, x: Array, name: str, stride: int = 1, padding: int = 0
    ) -> Array:
        kernel = self.tensors[f"{name}.weight"].transpose(2, 3, 1, 0)
        bias = self.tensors.get(f"{name}.bias", np.float32(0))
        return convolve(x, kernel, stride, padding) + bias

    def normalised(self, x: Array, name: str, stride: int = 1, pad: int = 0) -> Array:
        """Convolution and frozen batch normalisation."""
        x = self.convolution(x, name, stride, pad)
        norm = {
            kind: self.tensors[f"{name}.norm.{kind}"]
            for kind in ("weight", "bias", "running_mean", "running_var")
        }
        scale = norm["weight"] / np.sqrt(norm["running_var"] + MIN_NORM)
        return (x - norm["running_mean"]) * scale + norm["bias"]

    def dense(self, x: Array, name: str) -> Array:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def backbone(self, image: Array) -> Levels:
        """C2 to C5 of an RGB image in 0-255."""
        x = image[..., ::-1].astype(np.float32) - PIXEL_MEAN_BGR
        body = "backbone.bottom_up"
        x = relu(self.normalised(x, f"{body}.stem.conv1", 2, 3))
        x = max_pool(x, ((1, 1), (1, 1)))
        stages = {}
        for level, count in enumerate(BLOCKS[self.depth], start=2):
            for i in range(count):
                stride = 2 if level > 2 and i == 0 else 1
                x = self.bottleneck(x, f"{body}.res{level}.{i}", stride)
            stages[level] = x
        return stages

    def bottleneck(self, x: Array, name: str, stride: int) -> Array:
        shortcut = x
        if f"{name}.shortcut.weight" in self.tensors:
            shortcut = self.normalised(x, f"{name}.shortcut", stride)
        x = relu(self.normalised(x, f"{name}.conv1", stride))
        x = relu(self.normalised(x, f"{name}.conv2", 1, 1))
        return relu(self.normalised(x, f"{name}.conv3") + shortcut)

    def pyramid(self, stages: Levels) -> Levels:
        """P2 to P6."""
        maps: Levels = {}
        merged: Array = np.float32(0)
        for level in (5, 4, 3, 2):
            lateral = self.convolution(stages[level], f"backbone.fpn_lateral{level}")
            merged = lateral + merged
            maps[level] = self.convolution(
                merged, f"backbone.fpn_output{level}", padding=1
            )
            merged = doubled(merged)
        maps[6] = maps[5][::2, ::2]
        return maps

    def rpn(self, x: Array) -> tuple[Array, Array]:
        """Logits (h * w * 3,) and deltas (h * w * 3, 4) of a level."""
        name = "proposal_generator.rpn_head"
        x = relu(self.convolution(x, f"{name}.conv", padding=1))
        logits = self.convolution(x, f"{name}.objectness_logits")
        deltas = self.convolution(x, f"{name}.anchor_deltas")
        return logits.reshape(-1), deltas.reshape(-1, 4)

    def anchors(self, grid: tuple[int, int], level: int) -> Array:
        """One size, h / w of 0.5, 1 and 2, centred on multiples of the stride."""
        area = (8.0 * 2**level) ** 2
        boxes = []
        for row in range(grid[0]):
            for column in range(grid[1]):
                for ratio in (0.5, 1.0, 2.0):
                    width = np.sqrt(area / ratio)
                    height = ratio * width
                    x, y = column * 2**level, row * 2**level
                    half = (width / 2, height / 2)
                    boxes.append([x - half[0], y - half[1], x + half[0], y + half[1]])
        return np.array(boxes)

    def proposals(self, maps: Levels) -> Array:
        """The boxes of all levels, best first."""
        boxes, scores = [], []
        for level, features in sorted(maps.items()):
            logits, deltas = self.rpn(features)
            best = np.argsort(-logits, kind="stable")[:1000]
            found = moved(self.anchors(features.shape[:2], level)[best], deltas[best])
            found = clipped(found, self.image_size)
            best = best[np.all(found[:, 2:] > found[:, :2], axis=1)]
            found = found[np.all(found[:, 2:] > found[:, :2], axis=1)]
            kept = suppressed(found, logits[best], 0.7)
            boxes.append(found[kept])
            scores.append(logits[best][kept])
        order = np.argsort(-np.concatenate(scores), kind="stable")
        return np.concatenate(boxes)[order[: self.max_proposals]]

    def pooled(self, maps: Levels, rois: Array, cells: int) -> Array:
        size = np.sqrt(np.prod(rois[:, 2:] - rois[:, :2], axis=1))
        levels = np.floor(4 + np.log2(size / 224 + 1e-8))
        levels = np.clip(levels, 2, 5).astype(int).tolist()
        return pooled(maps, rois, levels, cells, aligned=True)

    def box_head(self, maps: Levels, rois: Array) -> tuple[Array, Array]:
        """Logits (N, K + 1) and deltas (N, K, 4)."""
        features = self.pooled(maps, rois, 7).transpose(0, 3, 1, 2)
        x = features.reshape(len(rois), -1).astype(np.float32)
        for name in ("fc1", "fc2"):
            x = relu(self.dense(x, f"roi_heads.box_head.{name}"))
        name = "roi_heads.box_predictor"
        deltas = self.dense(x, f"{name}.bbox_pred").reshape(len(rois), -1, 4)
        return self.dense(x, f"{name}.cls_score"), deltas

    def detections(
        self, logits: Array, deltas: Array, rois: Array
    ) -> tuple[Array, Array, Array]:
        """Boxes, scores and labels of at most 100, best first."""
        scores = softmax(logits.astype(np.float64))[:, :-1]
        boxes, kept_scores, labels = [], [], []
        for label in range(scores.shape[1]):
            rows = np.flatnonzero(scores[:, label] > 0.05)
            found = moved(rois[rows], deltas[rows, label] / [10, 10, 5, 5])
            found = clipped(found, self.image_size)
            kept = suppressed(found, scores[rows, label], 0.5)
            boxes.append(found[kept])
            kept_scores.append(scores[rows, label][kept])
            labels.append(np.full(len(kept), label))
        every = np.concatenate(kept_scores)
        order = np.argsort(-every, kind="stable")[:100]
        return np.concatenate(boxes)[order], every[order], np.concatenate(labels)[order]

    def masks(self, maps: Levels, boxes: Array, labels: Array) -> Array:
        """Probabilities (N, 28, 28) of the classes of detections."""
        name = "roi_heads.mask_head"
        kernel = self.tensors[f"{name}.deconv.weight"].transpose(2, 3, 0, 1)
        found = []
        for x, label in zip(self.pooled(maps, boxes, 14), labels, strict=True):
            for i in range(1, 5):
                x = relu(self.convolution(x, f"{name}.mask_fcn{i}", padding=1))
            bias = self.tensors[f"{name}.deconv.bias"]
            x = relu(transposed_convolution(x, kernel) + bias)
            logits = self.convolution(x, f"{name}.predictor")
            found.append(sigmoid(logits[..., label]))
        return np.stack(found)
