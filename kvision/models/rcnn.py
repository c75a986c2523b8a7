"""Faster R-CNN and Mask R-CNN on a feature pyramid."""

from collections.abc import Sequence
from typing import Any

import keras

from kvision import layers
from kvision.models.backbones import build_backbone, freeze_stages, normalization_of
from kvision.models.detector import Detector
from kvision.models.rcnn_losses import RCNNLosses
from kvision.models.recomputation import RecomputedFeatures

__all__ = ["build_rcnn", "faster_rcnn", "mask_rcnn"]

_DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_POOLED_LEVELS = ("P2", "P3", "P4", "P5")  # P6 only proposes


def faster_rcnn(
    backbone: str | keras.Model = "resnet50",
    *,
    class_names: Sequence[str],
    image_size: tuple[int, int] = (800, 1088),
    **arguments: Any,
) -> Detector:
    """Build a Faster R-CNN: boxes, scores and labels of objects.

    Args:
        backbone: see `mask_rcnn`.
        class_names: see `mask_rcnn`.
        image_size: see `mask_rcnn`.
        **arguments: all other arguments of `mask_rcnn` but those that begin with
            `mask_`.

    Returns:
        Detector without "masks" among its outputs.

    Raises:
        ValueError: as `mask_rcnn`.
        TypeError: for an unknown argument.

    Source: Ren et al. 2015, Faster R-CNN; Lin et al. 2017, FPN.
    """
    masks = sorted(name for name in arguments if name.startswith("mask"))
    if masks:
        raise TypeError(f"faster_rcnn has no masks. Received: {', '.join(masks)}")
    return build_rcnn(
        backbone=backbone,
        class_names=class_names,
        image_size=image_size,
        masks=False,
        **arguments,
    )


def mask_rcnn(
    backbone: str | keras.Model = "resnet50",
    *,
    class_names: Sequence[str],
    image_size: tuple[int, int] = (800, 1088),
    **arguments: Any,
) -> Detector:
    """Build a Mask R-CNN: boxes, scores, labels and masks of objects.

    Defaults are torchvision's. Example:

        model = kvision.models.mask_rcnn(
            "mobilenet_v2", class_names=["nucleus"], image_size=(256, 256)
        )

    Args:
        backbone: "resnet50" or "resnet101" (torchvision's layout), the snake-case name
            of a `keras.applications` model ("mobilenet_v2"), or a model object.
        class_names: names of the labels 0..K-1, background not among them.
        image_size: (height, width) of the input in pixels, at least 64.
        **arguments: keyword arguments of `build_rcnn`, all with defaults: backbone
            (`weights`, `frozen_stages`, ...), `rpn_*`, `box_*`, `mask_*`, detection
            thresholds.

    Returns:
        Detector: images (B, H, W, C) in 0-255 to a dict of `boxes` (B, M, 4) in pixels,
        `scores`, `labels`, `masks` (B, M, 28, 28) in [0, 1] and `num_detections`.

    Raises:
        ValueError: for an argument out of range.
        TypeError: for an unknown argument.

    Source: He et al. 2017, Mask R-CNN; Lin et al. 2017, FPN.
    """
    return build_rcnn(
        backbone=backbone,
        class_names=class_names,
        image_size=image_size,
        masks=True,
        **arguments,
    )


def build_rcnn(
    backbone: str | keras.Model,
    class_names: Sequence[str],
    image_size: tuple[int, int],
    masks: bool,
    *,
    weights: str | None = None,
    normalization: Any = "auto",
    num_channels: int = 3,
    frozen_stages: int | None = None,
    freeze_batch_norm: bool | None = None,
    batch_norm_epsilon: float | None = None,
    stride_in_1x1: bool = False,
    pool_padding: str = "symmetric",
    recompute_backbone: bool = False,
    resize: str = "pad",
    pyramid_channels: int = 256,
    head_batch_norm: bool = False,
    anchor_sizes: Sequence[float | Sequence[float]] = (32, 64, 128, 256, 512),
    anchor_aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    anchor_rounded: bool = True,
    anchor_strides: Sequence[int] | None = None,
    inclusive_boxes: bool = False,
    rpn_channels: int | None = None,
    rpn_num_convs: int = 1,
    rpn_num_samples: int = 256,
    rpn_positive_fraction: float = 0.5,
    rpn_positive_iou_threshold: float = 0.7,
    rpn_negative_iou_threshold: float = 0.3,
    rpn_pre_nms_top_k: int = 1000,
    rpn_post_nms_top_k: int = 1000,
    rpn_train_pre_nms_top_k: int = 2000,
    rpn_train_post_nms_top_k: int = 2000,
    rpn_nms_iou_threshold: float = 0.7,
    rpn_per_level: bool = True,
    rpn_delta_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    rpn_loss_beta: float = 1 / 9,
    roi_align_mode: str = "unaligned",
    roi_align_sampling_ratio: int = 2,
    roi_canonical_size: float = 224.0,
    box_hidden_dim: int = 1024,
    box_num_dense: int = 2,
    box_num_convs: int = 0,
    box_num_samples: int = 512,
    box_positive_fraction: float = 0.25,
    box_positive_iou_threshold: float = 0.5,
    box_negative_iou_threshold: float = 0.5,
    box_loss_beta: float = 1 / 9,
    mean_box_losses: bool = False,
    mask_channels: int = 256,
    mask_num_convs: int = 4,
    score_threshold: float = 0.05,
    nms_iou_threshold: float = 0.5,
    max_detections: int = 100,
    detection_pre_nms_top_k: int = 5000,
    best_class_only: bool = False,
    dtype: Any = None,
    name: str | None = None,
) -> Detector:
    """Build the detector that `faster_rcnn` and `mask_rcnn` document.

    Args:
        backbone: see `mask_rcnn`.
        class_names: see `mask_rcnn`.
        image_size: see `mask_rcnn`.
        masks: whether there is a mask head.
        weights: of a backbone given by name: "imagenet", a path (a Keras weights file,
            or torchvision's for a ResNet), or None for random ones.
        normalization: "auto" for what a named backbone expects; (mean, std) in 0-255;
            None if the images need none. Must be given for a model object.
        num_channels: channels of the input.
        frozen_stages: stages of the backbone that are not trained: 0 none, 1 the stem,
            2 also what ends in C2, ... 5 all. None: 2 with weights, otherwise 0.
        freeze_batch_norm: whether batch normalisation uses constants. None: with
            weights.
        batch_norm_epsilon: of "resnet50" and "resnet101"; None is 1e-5.
        stride_in_1x1: whether the stages of "resnet50" and "resnet101" have their
            stride in the first convolution instead of the 3x3 one.
        pool_padding: of their pooling: "symmetric", or TensorFlow's "same".
        recompute_backbone: whether training keeps few activations of the backbone and
            computes the others again for the gradients (gradient checkpointing): less
            memory, more time, the same numbers.
        resize: how images of other sizes are brought to `image_size`, kept with the
            model: "pad" keeps the aspect ratio, "stretch" does not.
        pyramid_channels: width of the pyramid.
        head_batch_norm: whether the convolutions of pyramid, box head and mask head are
            followed by batch normalisations and have no bias (torchvision's v2).
        anchor_sizes: pixels, for each of P2 to P6 a number or several.
        anchor_aspect_ratios: height / width.
        anchor_rounded: whether anchors are rounded to pixels.
        anchor_strides: pixels between the cells of each of P2 to P6; None for whole
            fractions of the image.
        inclusive_boxes: whether boxes are computed as matterport's, which end at the
            index of their last pixel; inputs and outputs stay as they are.
        rpn_channels: width of the RPN; None is that of the pyramid.
        rpn_num_convs: 3x3 convolutions of the RPN.
        rpn_num_samples: anchors of an image in the loss.
        rpn_positive_fraction: largest share of positives among them.
        rpn_positive_iou_threshold: overlap of a positive anchor.
        rpn_negative_iou_threshold: overlap below which an anchor is negative.
        rpn_pre_nms_top_k: anchors before suppression, of a level or of all.
        rpn_post_nms_top_k: proposals an image.
        rpn_train_pre_nms_top_k: the same in training.
        rpn_train_post_nms_top_k: the same in training.
        rpn_nms_iou_threshold: overlap above which a proposal is dropped.
        rpn_per_level: whether proposals are chosen from each level apart before the
            best of all are left, or from all levels together.
        rpn_delta_weights: factors of the deltas that the RPN predicts; those of the box
            head are 10, 10, 5 and 5.
        rpn_loss_beta: of the smooth L1 loss.
        roi_align_mode: "unaligned", "aligned" or "crop_and_resize".
        roi_align_sampling_ratio: samples a bin along each axis; 0 for as many as it has
            cells.
        roi_canonical_size: pixels of regions pooled from P4.
        box_hidden_dim: width of the fully connected layers.
        box_num_dense: number of fully connected layers.
        box_num_convs: number of 3x3 convolutions before them.
        box_num_samples: regions of an image in the loss.
        box_positive_fraction: largest share of positives among them.
        box_positive_iou_threshold: overlap of a positive region.
        box_negative_iou_threshold: overlap below which a region is background.
        box_loss_beta: of the smooth L1 loss.
        mean_box_losses: whether the two box losses are means over the deltas of
            positives instead of sums divided by all samples.
        mask_channels: width of the mask head.
        mask_num_convs: number of its 3x3 convolutions.
        score_threshold: detections at or below it are dropped.
        nms_iou_threshold: overlap above which a detection of the same class is dropped.
        max_detections: detections of an image.
        detection_pre_nms_top_k: candidates of an image before suppression.
        best_class_only: whether a region is detected as no class but its best one.
        dtype: dtype policy such as "mixed_bfloat16"; None for the global one.
        name: name of the model.

    Returns:
        The detector.

    Raises:
        ValueError: for an argument out of range.
    """
    arguments = {key: value for key, value in locals().items() if key != "name"}
    _check(arguments)
    height, width = image_size
    arguments.update(
        class_names=list(class_names),
        image_size=(height, width),
        weights=None,  # they are in the model's own file from now on
        frozen_stages=2 * bool(weights) if frozen_stages is None else frozen_stages,
        freeze_batch_norm=(
            bool(weights) if freeze_batch_norm is None else freeze_batch_norm
        ),
    )
    policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    arguments["dtype"] = policy.name
    body = build_backbone(
        backbone,
        (height, width),
        num_channels,
        weights,
        arguments["freeze_batch_norm"],
        batch_norm_epsilon,
        policy,
        stride_in_1x1=stride_in_1x1,
        pool_padding=pool_padding,
    )
    freeze_stages(body, arguments["frozen_stages"])
    num_classes = len(arguments["class_names"])

    normalize = _normalization(backbone, normalization, num_channels, policy)
    pyramid = layers.FeaturePyramid(
        pyramid_channels, head_batch_norm, dtype=policy, name="pyramid"
    )
    anchors = layers.Anchors(
        (height, width),
        anchor_sizes,
        anchor_aspect_ratios,
        anchor_rounded,
        anchor_strides,
        inclusive_boxes,
        name="anchors",
    )
    rpn = layers.RPN(
        anchors.num_anchors[0], rpn_channels, rpn_num_convs, dtype=policy, name="rpn"
    )
    pooling = {
        "sampling_ratio": roi_align_sampling_ratio,
        "mode": roi_align_mode,
        "canonical_size": roi_canonical_size,
        "dtype": policy,
    }
    box_align = layers.ROIAlign((height, width), 7, name="box_roi_align", **pooling)
    box_head = layers.BoxHead(
        num_classes,
        box_hidden_dim,
        box_num_dense,
        box_num_convs,
        batch_norm=head_batch_norm,
        dtype=policy,
        name="box_head",
    )
    mask_align = layers.ROIAlign((height, width), 14, name="mask_roi_align", **pooling)
    mask_head = layers.MaskHead(
        num_classes,
        mask_channels,
        mask_num_convs,
        head_batch_norm,
        dtype=policy,
        name="mask_head",
    )

    images = keras.Input((height, width, num_channels), name="images")
    maps = pyramid(body(normalize(images) if normalize else images))
    pooled_maps = {level: maps[level] for level in _POOLED_LEVELS}
    proposals, is_proposal = layers.ProposalSelection(
        (height, width),
        rpn_pre_nms_top_k,
        rpn_post_nms_top_k,
        rpn_nms_iou_threshold,
        per_level=rpn_per_level,
        delta_weights=rpn_delta_weights,
        name="proposals",
    )(*rpn(maps), anchors(maps))
    class_logits, box_deltas = box_head(box_align(pooled_maps, proposals))
    outputs = layers.DetectionSelection(
        (height, width),
        score_threshold,
        nms_iou_threshold,
        max_detections,
        detection_pre_nms_top_k,
        delta_weights=_DELTA_WEIGHTS,
        best_class_only=best_class_only,
        name="detections",
    )(class_logits, box_deltas, proposals, is_proposal)
    if masks:
        pooled = mask_align(pooled_maps, outputs["boxes"])
        logits = mask_head(pooled, outputs["labels"])
        outputs["masks"] = layers.MaskScores(name="masks")(logits, outputs["labels"])
    if inclusive_boxes:
        in_pixels = layers.PixelBoxes((height, width), name="pixel_boxes")
        outputs["boxes"] = in_pixels(outputs["boxes"], outputs["labels"])

    features: Any = keras.Model(images, maps, name="features")
    if recompute_backbone:
        features = RecomputedFeatures(normalize, body, pyramid)
    losses = RCNNLosses(
        features=features,
        anchors=anchors,
        rpn=rpn,
        box_align=box_align,
        box_head=box_head,
        mask_align=mask_align,
        mask_head=mask_head if masks else None,
        anchor_targets=layers.AnchorTargets(
            rpn_num_samples,
            rpn_positive_fraction,
            rpn_positive_iou_threshold,
            rpn_negative_iou_threshold,
            rpn_delta_weights,
        ),
        proposals=layers.ProposalSelection(
            (height, width),
            rpn_train_pre_nms_top_k,
            rpn_train_post_nms_top_k,
            rpn_nms_iou_threshold,
            per_level=rpn_per_level,
            delta_weights=rpn_delta_weights,
        ),
        roi_targets=layers.ROITargets(
            num_classes,
            box_num_samples,
            box_positive_fraction,
            box_positive_iou_threshold,
            box_negative_iou_threshold,
            _DELTA_WEIGHTS,
        ),
        rpn_loss=layers.RPNLoss(rpn_loss_beta, mean_box_losses),
        box_loss=layers.BoxLoss(box_loss_beta, mean_box_losses),
    )
    return Detector(
        images,
        outputs,
        losses=losses,
        loss_names=losses.names,
        arguments=arguments,
        name=name or ("mask_rcnn" if masks else "faster_rcnn"),
    )


def _normalization(
    backbone: str | keras.Model, normalization: Any, num_channels: int, policy: Any
) -> keras.layers.Layer | None:
    reverse_channels = False
    if normalization == "auto":
        if isinstance(backbone, keras.Model):
            raise ValueError(
                "A backbone given as a model object needs normalization=(mean, std) of "
                "its images in 0-255, or normalization=None if it takes 0-255 as it is."
            )
        normalization, reverse_channels = normalization_of(backbone, num_channels)
    if normalization is None:
        return None
    mean, std = normalization
    return layers.ImageNormalization(
        mean, std, reverse_channels, dtype=policy, name="normalization"
    )


def _check(arguments: dict[str, Any]) -> None:
    """Check the arguments whose mistakes would surface late and far away."""
    names = arguments["class_names"]
    if isinstance(names, str) or not names or len(set(names)) != len(names):
        raise ValueError(
            "class_names must be a list of one or more different names. Received: "
            f"class_names={names!r}"
        )
    size = arguments["image_size"]
    if len(size) != 2 or not all(isinstance(n, int) and n >= 64 for n in size):
        raise ValueError(
            "image_size must be (height, width), whole numbers of at least 64 pixels. "
            f"Received: image_size={size!r}"
        )
    if arguments["resize"] not in ("pad", "stretch"):
        raise ValueError(
            'resize must be "pad" or "stretch". Received: '
            f"resize={arguments['resize']!r}"
        )
    for key in ("anchor_sizes", "anchor_strides"):
        if arguments[key] is not None and len(arguments[key]) != 5:
            raise ValueError(
                f"{key} must have one entry for each of P2, P3, P4, P5 and P6. "
                f"Received: {key}={arguments[key]!r}"
            )
    if len(arguments["rpn_delta_weights"]) != 4:
        raise ValueError(
            "rpn_delta_weights must be factors of dx, dy, dw and dh. Received: "
            f"rpn_delta_weights={arguments['rpn_delta_weights']!r}"
        )
    for key, value in arguments.items():
        is_share = key.endswith(("_fraction", "_threshold"))
        if is_share and not 0 <= value <= 1:
            raise ValueError(f"{key} must be in [0, 1]. Received: {key}={value}")
        is_count = key.endswith(("_top_k", "_samples", "max_detections", "_channels"))
        if is_count and value is not None and value < 1:
            raise ValueError(f"{key} must be at least 1. Received: {key}={value}")
