"""The published models that `create` builds: where they are, what is known of them."""

from typing import Any, NamedTuple

from kvision.models.classifier import IMAGENET, MINUS_ONE_TO_ONE
from kvision.models.imagenet_names import IMAGENET_NAMES
from kvision.models.rcnn_conventions import TORCHVISION_V1, TORCHVISION_V2
from kvision.weights.coco_names import COCO_NAMES
from kvision.weights.hub import HubFile

__all__ = ["CLASS_NAMES", "PRESETS", "Metric", "Preset"]


class Metric(NamedTuple):
    """A figure of a model.

    Attributes:
        name: such as "ImageNet-1k top-1".
        value: in percent.
        source: where it is published, or the command that measured it.
    """

    name: str
    value: float
    source: str


class Preset(NamedTuple):
    """A published model.

    Attributes:
        name: what `create` takes.
        builder: name of its function in `kvision.models`.
        arguments: of that function.
        preprocessing: further ones, which say how images are prepared.
        classes: which `CLASS_NAMES` its head has.
        source: layout of the weights; see `kvision.weights.load`.
        origin: address of the weights, or their place on the hub.
        sha256: what their hash begins with; None where the publisher does not say.
        licence: of the weights.
        parameters: trained weights of the model as published.
        published: figures that others have published of these weights.
        measured: figures of these weights in kvision; empty until someone has run it.
    """

    name: str
    builder: str
    arguments: dict[str, Any]
    preprocessing: dict[str, Any]
    classes: str
    source: str
    origin: str | HubFile
    sha256: str | None
    licence: str
    parameters: int
    published: tuple[Metric, ...]
    measured: tuple[Metric, ...] = ()


CLASS_NAMES = {"ImageNet-1k": IMAGENET_NAMES, "COCO": tuple(COCO_NAMES.values())}

# Names on the hub, licences, parameters and preprocessing: timm 1.0.31, recorded by
# tests/parity/record_presets.py. Accuracies: its results at these sizes and crops.
_TIMM_RESULTS = (
    "huggingface/pytorch-image-models 0173a139, results/results-imagenet.csv"
)


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
        name if side == 224 else f"{name}_{side}",
        builder,
        {"variant": variant, "image_size": (side, side), **arguments},
        preprocessing,
        "ImageNet-1k",
        "timm",
        HubFile(f"timm/{model}"),
        None,
        "Apache-2.0",
        parameters,
        (Metric("ImageNet-1k top-1", top1, _TIMM_RESULTS),),
    )


def _short(variant: str) -> str:
    return variant.lower().replace("/", "").replace("+", "_")


def _augreg(
    variant: str,
    model: str,
    top1: float,
    parameters: int,
    side: int = 224,
    builder: str = "vit",
) -> Preset:
    return _timm(
        f"vit_{_short(variant)}_augreg_imagenet1k",
        f"vit_{model}_{side}.augreg_in21k_ft_in1k",
        builder,
        variant,
        top1,
        parameters,
        side=side,
        normalization=MINUS_ONE_TO_ONE,
    )


def _hybrid(
    variant: str, model: str, top1: float, parameters: int, side: int = 224
) -> Preset:
    return _augreg(variant, model, top1, parameters, side, "hybrid_vit")


def _deit(
    variant: str,
    model: str,
    top1: float,
    parameters: int,
    side: int = 224,
    distilled: bool = False,
) -> Preset:
    size, _, patch = model.partition("_")
    middle = "distilled_" if distilled else ""
    return _timm(
        f"deit_{_short(variant)}_{middle}imagenet1k",
        f"deit_{size}_{middle}{patch}_{side}.fb_in1k",
        "deit",
        variant,
        top1,
        parameters,
        side=side,
        distilled=distilled,
    )


def _deit3(
    variant: str,
    model: str,
    top1: float,
    parameters: int,
    side: int = 224,
    on_22k: bool = False,
) -> Preset:
    return _timm(
        f"deit3_{_short(variant)}_" + ("imagenet22k_1k" if on_22k else "imagenet1k"),
        f"deit3_{model}_{side}." + ("fb_in22k_ft_in1k" if on_22k else "fb_in1k"),
        "deit3",
        variant,
        top1,
        parameters,
        side=side,
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


def _torchvision(
    name: str, file: str, sha256: str, parameters: int, **average_precision: float
) -> Preset:
    """Take torchvision 0.29's names, hashes and figures: the metadata of its weights.

    Its figures are of photos whose short side has 800 pixels and whose long side at
    most 1333; our input, of one size, fits those of 3:4, and shrinks others.
    """
    conventions = TORCHVISION_V2 if "_v2_" in name else TORCHVISION_V1
    return Preset(
        name,
        "mask_rcnn" if name.startswith("mask") else "faster_rcnn",
        {
            "backbone": "resnet50",
            "image_size": (800, 1088),
            # As for a backbone that comes with weights.
            "frozen_stages": 2,
            "freeze_batch_norm": True,
            **conventions,
        },
        {"normalization": IMAGENET, "resize": "pad"},
        "COCO",
        "torchvision",
        f"https://download.pytorch.org/models/{file}-{sha256}.pth",
        sha256,
        "not stated (torchvision is BSD-3-Clause)",
        parameters,
        tuple(
            Metric(
                f"COCO val2017 {of} AP", value, "torchvision 0.29, metadata of weights"
            )
            for of, value in average_precision.items()
        ),
    )


_ALL = (
    _augreg("Ti/16", "tiny_patch16", 75.454, 5717416),
    _augreg("Ti/16", "tiny_patch16", 78.424, 5790376, 384),
    _augreg("S/32", "small_patch32", 75.994, 22878952),
    _augreg("S/32", "small_patch32", 80.486, 22915432, 384),
    _augreg("S/16", "small_patch16", 81.384, 22050664),
    _augreg("S/16", "small_patch16", 83.802, 22196584, 384),
    _augreg("B/32", "base_patch32", 80.716, 88224232),
    _augreg("B/32", "base_patch32", 83.350, 88297192, 384),
    _augreg("B/16", "base_patch16", 84.532, 86567656),
    _augreg("B/16", "base_patch16", 85.996, 86859496, 384),
    _augreg("L/16", "large_patch16", 85.834, 304326632),
    _augreg("L/16", "large_patch16", 87.084, 304715752, 384),
    _hybrid("R+Ti/16", "tiny_r_s16_p8", 71.798, 6337704),
    _hybrid("R+Ti/16", "tiny_r_s16_p8", 75.962, 6355944, 384),
    _hybrid("R26+S/32", "small_r26_s32", 81.864, 36431912),
    _hybrid("R26+S/32", "small_r26_s32", 84.048, 36468392, 384),
    _hybrid("R50+L/32", "large_r50_s32", 84.422, 328994856),
    _hybrid("R50+L/32", "large_r50_s32", 86.182, 329092136, 384),
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
    _deit3("S/16", "small_patch16", 83.430, 22205416, 384),
    _deit3("B/16", "base_patch16", 85.072, 86877160, 384),
    _deit3("L/16", "large_patch16", 85.812, 304763880, 384),
    _deit3("S/16", "small_patch16", 83.074, 22059496, on_22k=True),
    _deit3("M/16", "medium_patch16", 84.552, 38849512, on_22k=True),
    _deit3("B/16", "base_patch16", 85.700, 86585320, on_22k=True),
    _deit3("L/16", "large_patch16", 86.982, 304374760, on_22k=True),
    _deit3("H/14", "huge_patch14", 87.186, 632126440, on_22k=True),
    _deit3("S/16", "small_patch16", 84.824, 22205416, 384, on_22k=True),
    _deit3("B/16", "base_patch16", 86.738, 86877160, 384, on_22k=True),
    _deit3("L/16", "large_patch16", 87.720, 304763880, 384, on_22k=True),
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
