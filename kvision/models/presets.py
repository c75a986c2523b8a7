"""`create`: published models with their weights, by name."""

import difflib
from pathlib import Path
from typing import Any, NamedTuple

import keras

from kvision.models.classifier import IMAGENET, MINUS_ONE_TO_ONE
from kvision.models.rcnn_conventions import TORCHVISION_V1, TORCHVISION_V2
from kvision.weights.fetching import HubFile, fetch
from kvision.weights.loading import load

__all__ = ["PRESETS", "Metric", "Preset", "create"]


class Metric(NamedTuple):
    """A published figure.

    Attributes:
        name: such as "ImageNet-1k top-1".
        value: in percent.
        published: where.
    """

    name: str
    value: float
    published: str


class Preset(NamedTuple):
    """A published model.

    Attributes:
        name: what `create` takes.
        builder: name of its function in `kvision.models`.
        arguments: of that function.
        preprocessing: further ones, which say how images are prepared.
        source: layout of the weights; see `kvision.weights.load`.
        origin: address of the weights, or their place on the hub.
        sha256: what their hash begins with; None where the publisher does not say.
        licence: of the weights.
        parameters: trained weights of the model as published.
        metrics: published figures of these weights.
    """

    name: str
    builder: str
    arguments: dict[str, Any]
    preprocessing: dict[str, Any]
    source: str
    origin: str | HubFile
    sha256: str | None
    licence: str
    parameters: int
    metrics: tuple[Metric, ...]


# Hub names, licences and preprocessing: timm 1.0.31, default_cfgs. Accuracies: its
# results at these sizes and crops.
_TIMM_RESULTS = (
    "huggingface/pytorch-image-models 0173a139, results/results-imagenet.csv"
)
_TOP1 = "ImageNet-1k top-1"


def _timm(
    name: str,
    model: str,
    builder: str,
    variant: str,
    top1: float,
    parameters: int,
    *,
    side: int = 224,
    crop_fraction: float = 0.9,
    normalization: Any = IMAGENET,
    **arguments: Any,
) -> Preset:
    preprocessing = {
        "normalization": normalization,
        "resize": "crop",
        "crop_fraction": 1.0 if side == 384 else crop_fraction,
        "interpolation": "bicubic",
    }
    return Preset(
        name,
        builder,
        {"variant": variant, "image_size": (side, side), **arguments},
        preprocessing,
        "timm",
        HubFile(f"timm/{model}"),
        None,
        "Apache-2.0",
        parameters,
        (Metric(_TOP1, top1, _TIMM_RESULTS),),
    )


def _augreg(
    variant: str, model: str, top1: float, parameters: int, side: int = 224
) -> Preset:
    name = f"vit_{variant.lower().replace('/', '')}_augreg_imagenet1k"
    return _timm(
        name if side == 224 else f"{name}_{side}",
        f"vit_{model}_{side}.augreg_in21k_ft_in1k",
        "vit",
        variant,
        top1,
        parameters,
        side=side,
        normalization=MINUS_ONE_TO_ONE,
    )


def _deit(
    variant: str,
    model: str,
    top1: float,
    parameters: int,
    side: int = 224,
    distilled: bool = False,
) -> Preset:
    name = f"deit_{variant.lower().replace('/', '')}"
    name += "_distilled_imagenet1k" if distilled else "_imagenet1k"
    size, _, patch = model.partition("_")
    middle = "distilled_" if distilled else ""
    return _timm(
        name if side == 224 else f"{name}_{side}",
        f"deit_{size}_{middle}{patch}_{side}.fb_in1k",
        "deit",
        variant,
        top1,
        parameters,
        side=side,
        distilled=distilled,
    )


def _deit3(
    variant: str, model: str, top1: float, parameters: int, on_22k: bool = False
) -> Preset:
    name = f"deit3_{variant.lower().replace('/', '')}"
    return _timm(
        name + ("_imagenet22k_1k" if on_22k else "_imagenet1k"),
        f"deit3_{model}_224." + ("fb_in22k_ft_in1k" if on_22k else "fb_in1k"),
        "deit3",
        variant,
        top1,
        parameters,
        crop_fraction=1.0 if on_22k else 0.9,
    )


def _twins(family: str, variant: str, top1: float, parameters: int) -> Preset:
    size = {"S": "small", "B": "base", "L": "large"}[variant]
    return _timm(
        f"{family}_{variant.lower()}_imagenet1k",
        f"{family}_{size}.in1k",
        family,
        variant,
        top1,
        parameters,
    )


# torchvision's names of COCO's category ids 1 to 90; ten are not in use.
_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,"
    "fire hydrant,,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,"
    "bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,suitcase,frisbee,skis,"
    "snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,"
    "orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,"
    "dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,"
    "toaster,sink,refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,"
    "toothbrush"
)
_COCO_SLOTS = tuple(
    name or f"unused {number}" for number, name in enumerate(_COCO.split(","), start=1)
)


def _torchvision(
    name: str, file: str, sha256: str, parameters: int, **average_precision: float
) -> Preset:
    """Take torchvision 0.29's names, hashes and figures: the metadata of its weights.

    It publishes the code under BSD-3-Clause, and weights without terms of their own.
    """
    conventions = TORCHVISION_V2 if "_v2_" in name else TORCHVISION_V1
    published = "torchvision 0.29, metadata of the weights"
    return Preset(
        name,
        "mask_rcnn" if name.startswith("mask") else "faster_rcnn",
        {
            "backbone": "resnet50",
            "class_names": _COCO_SLOTS,
            # As for a backbone that comes with weights.
            "frozen_stages": 2,
            "freeze_batch_norm": True,
            **conventions,
        },
        {"resize": "pad", "image_size": (800, 1088)},
        "torchvision",
        f"https://download.pytorch.org/models/{file}-{sha256}.pth",
        sha256,
        "BSD-3-Clause",
        parameters,
        tuple(
            Metric(f"COCO val2017 {of} AP", value, published)
            for of, value in average_precision.items()
        ),
    )


_ALL = (
    _augreg("Ti/16", "tiny_patch16", 75.454, 5717416),
    _augreg("Ti/16", "tiny_patch16", 78.424, 5790376, 384),
    _augreg("S/32", "small_patch32", 75.994, 22878952),
    _augreg("S/16", "small_patch16", 81.384, 22050664),
    _augreg("S/16", "small_patch16", 83.802, 22196584, 384),
    _augreg("B/32", "base_patch32", 80.716, 88224232),
    _augreg("B/32", "base_patch32", 83.350, 88297192, 384),
    _augreg("B/16", "base_patch16", 84.532, 86567656),
    _augreg("B/16", "base_patch16", 85.996, 86859496, 384),
    _augreg("L/16", "large_patch16", 85.834, 304326632),
    _augreg("L/16", "large_patch16", 87.084, 304715752, 384),
    _deit("Ti/16", "tiny_patch16", 72.172, 5717416),
    _deit("S/16", "small_patch16", 79.844, 22050664),
    _deit("B/16", "base_patch16", 81.992, 86567656),
    _deit("B/16", "base_patch16", 83.106, 86859496, 384),
    _deit("Ti/16", "tiny_patch16", 74.500, 5910800, distilled=True),
    _deit("S/16", "small_patch16", 81.218, 22436432, distilled=True),
    _deit("B/16", "base_patch16", 83.386, 87338192, distilled=True),
    _deit("B/16", "base_patch16", 85.426, 87630032, 384, distilled=True),
    _deit3("S/16", "small_patch16", 81.370, 22059496),
    _deit3("M/16", "medium_patch16", 83.086, 38849512),
    _deit3("B/16", "base_patch16", 83.786, 86585320),
    _deit3("L/16", "large_patch16", 84.776, 304374760),
    _deit3("H/14", "huge_patch14", 85.224, 632126440),
    _deit3("S/16", "small_patch16", 83.074, 22059496, on_22k=True),
    _deit3("M/16", "medium_patch16", 84.552, 38849512, on_22k=True),
    _deit3("B/16", "base_patch16", 85.700, 86585320, on_22k=True),
    _deit3("L/16", "large_patch16", 86.982, 304374760, on_22k=True),
    _deit3("H/14", "huge_patch14", 87.186, 632126440, on_22k=True),
    _twins("twins_svt", "S", 81.678, 24060776),
    _twins("twins_svt", "B", 83.122, 56070952),
    _twins("twins_svt", "L", 83.678, 99271400),
    _twins("twins_pcpvt", "S", 81.096, 24106216),
    _twins("twins_pcpvt", "B", 82.710, 43828456),
    _twins("twins_pcpvt", "L", 83.130, 60989672),
    _torchvision(
        "faster_rcnn_resnet50_coco",
        "fasterrcnn_resnet50_fpn_coco",
        "258fb6c6",
        41755286,
        box=37.0,
    ),
    _torchvision(
        "faster_rcnn_resnet50_v2_coco",
        "fasterrcnn_resnet50_fpn_v2_coco",
        "dd69338a",
        43712278,
        box=46.7,
    ),
    _torchvision(
        "mask_rcnn_resnet50_coco",
        "maskrcnn_resnet50_fpn_coco",
        "bf2d0c1e",
        44401393,
        box=37.9,
        mask=34.6,
    ),
    _torchvision(
        "mask_rcnn_resnet50_v2_coco",
        "maskrcnn_resnet50_fpn_v2_coco",
        "73cbd019",
        46359409,
        box=47.4,
        mask=41.8,
    ),
)
PRESETS = {preset.name: preset for preset in _ALL}


def create(
    name: str, weights: "bool | str | Path" = True, **overrides: Any
) -> keras.Model:
    """Build a published model with its weights, which are downloaded the first time.

    Example:
        model = kvision.create("vit_b16_augreg_imagenet1k", num_classes=10)

    Args:
        name: one of `kvision.models.presets.PRESETS`; `kvision models` lists them.
        weights: False for random ones, or a file of these weights in their layout.
        **overrides: arguments of the builder in place of the preset's. A head of other
            classes keeps its first values; positions are brought to another
            `image_size`.

    Returns:
        The model, which prepares images as the weights need them.

    Raises:
        ValueError: there is no such preset, or its weights cannot be had or do not fit.
        ImportError: they are on the hub, and huggingface_hub is not installed.
    """
    from kvision import models

    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"No preset {name!r}.{hint} `kvision models` lists them")
    preset = PRESETS[name]
    # Before a model takes memory: the download may fail.
    path = fetch(preset.origin, preset.sha256) if weights is True else weights
    build = getattr(models, preset.builder)
    arguments = {**preset.arguments, **preset.preprocessing, **overrides}
    model = build(**arguments)
    if path is not False:
        unused = ["head.", "head_dist."] if arguments.get("num_classes") == 0 else []
        load(model, Path(path), preset.source, unused=unused)
    return model
