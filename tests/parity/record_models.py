"""Record Mask R-CNN of torchvision stage by stage, into tests/golden.

Run by `record_torchvision.py`; needs torch and torchvision 0.29. Weights and images are
functions of names and seeds (`seeded.py`), so that only results are stored: small
tensors whole, large ones as some hundred values and a summary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from record_ops import mask_bitmaps
from seeded import images_for, sample, summary, weights_for
from torchvision.models import resnet50, resnet101
from torchvision.models.detection import (
    MaskRCNN,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    keypointrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import (
    BackboneWithFPN,
    resnet_fpn_backbone,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import (
    maskrcnn_inference,
    paste_masks_in_image,
    project_masks_on_boxes,
)
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops.misc import FrozenBatchNorm2d

Arrays = dict[str, np.ndarray]

IMAGE_SIZE = (256, 320)
# Boxes of more than 448 px, which are pooled from P5, fit in; P6 has 9 columns, so
# torchvision's stride there is 544 // 9 = 60.
LARGE_IMAGE_SIZE = (448, 544)
# No stride divides it: maps are halved with rounding up, the pyramid cuts a row.
ODD_IMAGE_SIZE = (203, 317)
FULL_IMAGE_SIZE = (800, 1088)
LEVELS = ("P2", "P3", "P4", "P5", "P6")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NUM_ROIS = 100  # RoIs an image whose head outputs are stored
SELECTION_THRESHOLD = 0.002
NUM_MASKS = 12  # detections an image whose masks are stored


def mask_rcnn(num_classes: int, epsilon: float, max_detections: int) -> MaskRCNN:
    """Build v1 with frozen batch norm and seeded weights.

    Args:
        num_classes: background included, as torchvision counts.
        epsilon: of batch norm: 0 is what torchvision sets for its COCO_V1 weights,
            1e-5 what it uses for weights trained since.
        max_detections: `box_detections_per_img`.
    """
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d
    )
    model = MaskRCNN(backbone, num_classes, box_detections_per_img=max_detections)
    overwrite_eps(model, epsilon)
    return with_seeded_weights(model)


def mask_rcnn_v2(num_classes: int, max_detections: int) -> MaskRCNN:
    """Build v2, which has batch norm in its heads too; arguments as of `mask_rcnn`."""
    model = maskrcnn_resnet50_fpn_v2(
        weights_backbone=None,
        num_classes=num_classes,
        box_detections_per_img=max_detections,
    )
    return with_seeded_weights(model)


def with_seeded_weights(model: MaskRCNN) -> MaskRCNN:
    weights = {
        name: torch.from_numpy(weights_for(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(weights)
    return model.eval()


def normalised(count: int, size: tuple[int, int]) -> ImageList:
    """Seeded images as the transform would hand them on: no resizing, no padding."""
    images = torch.from_numpy(images_for(count, size)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (MEAN, STD))
    return ImageList((images - mean) / std, [size] * count)


def channels_last(values: torch.Tensor) -> np.ndarray:
    return values.detach().permute(0, 2, 3, 1).contiguous().numpy()


def digest(name: str, values: np.ndarray, count: int = 500) -> Arrays:
    """Some values of a large tensor and the size of all of them."""
    return {f"{name}/sample": sample(values, count), f"{name}/summary": summary(values)}


@dataclass
class Scene:
    """A model, the pyramid of some images, and their sizes."""

    model: MaskRCNN
    features: dict
    sizes: list[tuple[int, int]]

    def box_head(self, rois: list) -> tuple:
        """Pooled features, class logits and deltas of RoIs."""
        heads = self.model.roi_heads
        pooled = heads.box_roi_pool(self.features, rois, self.sizes)
        return pooled, *heads.box_predictor(heads.box_head(pooled))

    def mask_head(self, rois: list) -> torch.Tensor:
        """Mask logits of RoIs, for every class."""
        heads = self.model.roi_heads
        pooled = heads.mask_roi_pool(self.features, rois, self.sizes)
        return heads.mask_predictor(heads.mask_head(pooled))


def balance_heads(scene: Scene, proposals: list, background: float) -> Arrays:
    """Centre class and mask logits by their bias, so that every class is detected.

    Random heads send all RoIs to one class. The two biases are the only weights that
    are stored.

    Args:
        scene: the biases of its model are replaced.
        proposals: boxes of each image.
        background: logit added to the background class; more of it, fewer detections.
    """
    logits = scene.box_head(proposals)[1]
    classes = scene.model.roi_heads.box_predictor.cls_score.bias
    classes -= logits.mean(0)
    classes[0] += background
    some = [boxes[:20] for boxes in proposals]
    masks = scene.model.roi_heads.mask_predictor.mask_fcn_logits.bias
    masks -= scene.mask_head(some).mean((0, 2, 3))
    return {
        "weights/roi_heads.box_predictor.cls_score.bias": classes.numpy(),
        "weights/roi_heads.mask_predictor.mask_fcn_logits.bias": masks.numpy(),
    }


def record_backbone(backbone: BackboneWithFPN, images: torch.Tensor) -> tuple:
    stages = backbone.body(images)
    features = backbone.fpn(stages)
    recorded = {}
    for name, values in zip(("C2", "C3", "C4", "C5"), stages.values(), strict=True):
        recorded |= digest(name, channels_last(values))
    for name, values in zip(LEVELS, features.values(), strict=True):
        recorded |= digest(name, channels_last(values))
    return features, recorded


def record_rpn(model: MaskRCNN, images: ImageList, features: dict) -> tuple:
    """RPN outputs in the order of the anchors, and the proposals of inference."""
    logits, deltas = model.rpn.head(list(features.values()))
    logits, deltas = concat_box_prediction_layers(logits, deltas)
    batch = len(images.image_sizes)
    logits, deltas = logits.reshape(batch, -1), deltas.reshape(batch, -1, 4)
    proposals, _ = model.rpn(images, features)
    recorded = {"objectness_logits": logits.numpy()}
    recorded |= digest("anchor_deltas", deltas.numpy(), 4000)
    for i, boxes in enumerate(proposals):
        recorded[f"proposals_{i}"] = boxes.numpy()
    return proposals, recorded


def record_box_head(scene: Scene, proposals: list) -> Arrays:
    rois = [boxes[:NUM_ROIS] for boxes in proposals]
    pooled, logits, deltas = scene.box_head(rois)
    recorded = {"class_logits": logits.numpy(), "box_deltas": deltas.numpy()}
    recorded |= digest("roi_features", channels_last(pooled), 2000)
    return recorded | record_selection(scene, logits, deltas, rois)


def record_selection(
    scene: Scene, logits: torch.Tensor, deltas: torch.Tensor, rois: list
) -> Arrays:
    """Detections of given RoIs and head outputs, at a threshold that leaves many."""
    heads = scene.model.roi_heads
    usual, heads.score_thresh = heads.score_thresh, SELECTION_THRESHOLD
    found = heads.postprocess_detections(logits, deltas, rois, scene.sizes)
    heads.score_thresh = usual
    recorded = {}
    for i, (boxes, scores, labels) in enumerate(zip(*found, strict=True)):
        recorded[f"selected_boxes_{i}"] = boxes.numpy()
        recorded[f"selected_scores_{i}"] = scores.numpy()
        recorded[f"selected_labels_{i}"] = labels.numpy().astype(np.int16)
    return recorded


def record_detections(scene: Scene, proposals: list) -> Arrays:
    _, logits, deltas = scene.box_head(proposals)
    found = scene.model.roi_heads.postprocess_detections(
        logits, deltas, proposals, scene.sizes
    )
    recorded = {}
    for i, (boxes, scores, labels) in enumerate(zip(*found, strict=True)):
        recorded |= {f"boxes_{i}": boxes.numpy(), f"scores_{i}": scores.numpy()}
        recorded[f"labels_{i}"] = labels.numpy().astype(np.int16)
    some = [boxes[:NUM_MASKS] for boxes in found[0]]
    labels = [values[:NUM_MASKS] for values in found[2]]
    logits = scene.mask_head(some)
    recorded |= digest("mask_logits", channels_last(logits), 4000)
    masks = maskrcnn_inference(logits, labels)
    for i, values in enumerate(masks):
        pasted = paste_masks_in_image(values, some[i], scene.sizes[i])[:, 0].numpy()
        recorded[f"masks_{i}"] = values[:, 0].numpy()
        recorded[f"pasted_{i}"] = np.packbits(pasted > 0.5, axis=-1)
    return recorded


@torch.no_grad()
def record_inference(model: MaskRCNN, images: ImageList, background: float) -> Arrays:
    """Every stage of the inference of one model; `background` as in `balance_heads`."""
    features, recorded = record_backbone(model.backbone, images.tensors)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    recorded["state_dict/names"] = np.array(list(shapes))
    recorded["state_dict/shapes"] = np.array([str(s) for s in shapes.values()])
    proposals, rpn = record_rpn(model, images, features)
    scene = Scene(model, features, images.image_sizes)
    recorded |= rpn | balance_heads(scene, proposals, background)
    recorded |= record_box_head(scene, proposals)
    recorded |= record_detections(scene, proposals)
    for i in range(len(proposals)):
        labels = recorded[f"labels_{i}"]
        print(f"image {i}: {len(labels)} detections of {len(set(labels))} classes")
    return recorded


@torch.no_grad()
def record_full_size(model: MaskRCNN, background: float) -> Arrays:
    """Features, proposals and detections of an image of the usual size."""
    images = normalised(1, FULL_IMAGE_SIZE)
    recorded = record_inference(model, images, background)
    logits = recorded.pop("objectness_logits")
    return recorded | digest("objectness_logits", logits)


def record_names() -> Arrays:
    """Names and shapes of what the files of published models hold."""
    detectors = (
        fasterrcnn_resnet50_fpn,
        fasterrcnn_resnet50_fpn_v2,
        maskrcnn_resnet50_fpn,
        maskrcnn_resnet50_fpn_v2,
        keypointrcnn_resnet50_fpn,
    )
    models = {build.__name__: build(weights_backbone=None) for build in detectors}
    models |= {"resnet50": resnet50(), "resnet101": resnet101()}
    recorded = {}
    for name, model in models.items():
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        recorded[f"{name}/state_dict/names"] = np.array(list(shapes))
        recorded[f"{name}/state_dict/shapes"] = np.array(
            [str(shape) for shape in shapes.values()]
        )
    return recorded


@torch.no_grad()
def record_resnet101() -> Arrays:
    """C2 to C5 of the deeper backbone."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet101", weights=None, norm_layer=FrozenBatchNorm2d
    )
    names = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    weights = {
        name.removeprefix("backbone."): torch.from_numpy(
            weights_for(name, tuple(v.shape))
        )
        for name, v in names.items()
    }
    backbone.load_state_dict(weights)
    return record_backbone(backbone, normalised(1, (128, 160)).tensors)[1]


# --- training -------------------------------------------------------------------------

GRADIENTS = (
    "backbone.body.layer2.0.conv1.weight",
    "backbone.body.layer4.2.conv3.weight",
    "backbone.fpn.inner_blocks.0.0.weight",
    "backbone.fpn.layer_blocks.3.0.bias",
    "rpn.head.conv.0.0.weight",
    "rpn.head.bbox_pred.weight",
    "roi_heads.box_head.fc6.weight",
    "roi_heads.box_predictor.cls_score.weight",
    "roi_heads.box_predictor.bbox_pred.bias",
    "roi_heads.mask_head.0.0.weight",
    "roi_heads.mask_predictor.conv5_mask.weight",
)


@contextmanager
def first_come_sampling() -> Iterator[None]:
    """Make both samplers take the first candidates in index order."""
    original = torch.randperm
    torch.randperm = lambda n, **_: torch.arange(n)
    try:
        yield
    finally:
        torch.randperm = original


@contextmanager
def spied(owner: object, name: str) -> Iterator[list]:
    """Collect the results of a method while it works as before."""
    original: Callable = getattr(owner, name)
    results: list = []

    def wrapper(*args: object, **kwargs: object) -> object:
        results.append(original(*args, **kwargs))
        return results[-1]

    setattr(owner, name, wrapper)
    try:
        yield results
    finally:
        delattr(owner, name)


def ground_truth(proposals: list[torch.Tensor], num_classes: int) -> list[dict]:
    """Objects near some proposals, so that RoIs match; the last image has none."""
    targets = []
    for i, boxes in enumerate(proposals):
        boxes = boxes.numpy()
        sizes = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
        large = boxes[sizes > 16]
        chosen = large[:: max(1, len(large) // 7)][:7] + np.array([3.3, -2.1, 1.2, 2.6])
        chosen = np.clip(chosen, 0, [320, 256, 320, 256]).astype(np.float32)
        if i == len(proposals) - 1:
            chosen = chosen[:0]
        masks = np.zeros((0, *IMAGE_SIZE), np.uint8)
        if len(chosen):
            masks = mask_bitmaps(len(chosen), IMAGE_SIZE, chosen)
        labels = 1 + (np.arange(len(chosen)) * 3 + i) % (num_classes - 1)
        targets.append(
            {
                "boxes": torch.from_numpy(chosen),
                "labels": torch.from_numpy(labels.astype(np.int64)),
                "masks": torch.from_numpy(masks),
            }
        )
    return targets


def record_targets(targets: list[dict]) -> Arrays:
    recorded = {}
    for i, target in enumerate(targets):
        recorded[f"gt_boxes_{i}"] = target["boxes"].numpy()
        recorded[f"gt_labels_{i}"] = target["labels"].numpy().astype(np.int16)
        recorded[f"gt_bitmaps_{i}"] = np.packbits(target["masks"].numpy(), axis=-1)
    return recorded


def record_anchor_samples(labels: list, samples: tuple) -> Arrays:
    """Verdict of every anchor (1, 0, -1) and which ones are sampled."""
    recorded = {}
    for i, verdicts in enumerate(labels):
        recorded[f"anchor_verdicts_{i}"] = verdicts.numpy().astype(np.int8)
        for kind, masks in zip(("positive", "negative"), samples, strict=True):
            chosen = torch.where(masks[i])[0]
            recorded[f"{kind}_anchors_{i}"] = chosen.numpy().astype(np.int32)
    return recorded


def record_roi_samples(samples: tuple, targets: list[dict]) -> Arrays:
    rois, matches, labels, deltas = samples
    recorded = {}
    for i in range(len(rois)):
        recorded[f"rois_{i}"] = rois[i].detach().numpy()
        recorded[f"roi_labels_{i}"] = labels[i].numpy().astype(np.int16)
        recorded[f"roi_matches_{i}"] = matches[i].numpy().astype(np.int16)
        positive = labels[i] > 0
        recorded[f"roi_delta_targets_{i}"] = deltas[i][positive].numpy()
        recorded[f"mask_targets_{i}"] = project_masks_on_boxes(
            targets[i]["masks"], rois[i][positive], matches[i][positive], 28
        ).numpy()
    return recorded


def record_training(num_classes: int, epsilon: float, count: int) -> Arrays:
    """Targets, losses and gradients on prescribed samples; the last image is empty."""
    model = mask_rcnn(num_classes, epsilon, 100)
    images = normalised(count, IMAGE_SIZE)
    with torch.no_grad():
        features = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, features)
        scene = Scene(model, features, images.image_sizes)
        recorded = balance_heads(scene, proposals, 1.0)
    targets = ground_truth(proposals, num_classes)
    recorded |= record_targets(targets)

    model.train()
    heads = model.roi_heads
    with (
        first_come_sampling(),
        spied(model.rpn, "assign_targets_to_anchors") as verdicts,
        spied(model.rpn, "filter_proposals") as filtered,
        spied(heads, "select_training_samples") as samples,
    ):
        features = model.backbone(images.tensors)
        proposals, losses = model.rpn(images, features, targets)
        _, more = heads(features, proposals, images.image_sizes, targets)
        anchors = model.rpn.fg_bg_sampler(verdicts[0][0])
    losses |= more
    recorded |= record_anchor_samples(verdicts[0][0], anchors)
    recorded |= record_roi_samples(samples[0], targets)
    for i, boxes in enumerate(filtered[0][0]):
        recorded[f"proposals_{i}"] = boxes.detach().numpy()
    for name, value in losses.items():
        recorded[f"losses/{name}"] = value.detach().numpy()
    return recorded | record_gradients(model, losses)


def record_gradients(model: MaskRCNN, losses: dict) -> Arrays:
    """Gradients of the mask loss apart: its targets depend on how masks are kept."""
    parameters = dict(model.named_parameters())
    chosen = [parameters[name] for name in GRADIENTS]
    mask = losses["loss_mask"]
    others = sum(value for name, value in losses.items() if name != "loss_mask")
    recorded = {}
    for kind, loss in (("others", others), ("mask", mask)):
        gradients = torch.autograd.grad(
            loss, chosen, retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(GRADIENTS, gradients, strict=True):
            if gradient is not None:
                values = gradient.numpy()
                recorded |= digest(f"gradients_{kind}/{name}", values, 200)
    return recorded
