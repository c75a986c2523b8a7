"""What is measured, and who takes part in it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.contest import Contestant

__all__ = ["SUITE", "Places", "limits"]

# Billions of operations in the matrix products of an image, forward: twice the
# multiply-adds that timm and torchvision state.
_VIT_GFLOP = {"Ti/16": 2.52, "S/16": 9.2, "B/16": 35.2, "L/16": 123.2}
_MASK_RCNN_GFLOP = 268.8
# A step of training computes gradients of inputs and weights as well.
_STEP = 3

_PRECISIONS = ("bfloat16", "float32")
# Of sweeps: the faster one on processors that have it.
_SWEPT = "bfloat16"

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Places:
    """Where things are on this machine.

    Attributes:
        pythons: interpreter of each environment: "kvision", "torch", "keras_hub".
        data: folder of a COCO data set, with `annotations/instances_train2017.json`
            and `train2017`, or None.
        small: whether to take part with tiny sizes: only to see that all runs.
    """

    pythons: dict[str, str]
    data: Path | None = None
    small: bool = False

    def contestants(
        self,
        entries: Iterable[tuple[str, str, str]],
        *options: str,
        units: float = 1,
        gflop: float = 0.0,
        precision: str = "float32",
        group: str = "",
    ) -> list[Contestant]:
        """Make contestants of those whose environment is there.

        Args:
            entries: (environment, name, module and options of its own) of each.
            *options: of all.
            units: of a call.
            gflop: of a unit.
            precision: of the products.
            group: of a sweep; their names tell it.

        Returns:
            Contestants.
        """
        return [
            Contestant(
                f"{name}, {group}" if group else name,
                [self.pythons[kind], "-m", *f"benchmarks.{module}".split(), *options],
                units,
                gflop,
                precision,
                group,
            )
            for kind, name, module in entries
            if kind in self.pythons
        ]


def vit_inference(places: Places) -> list[Contestant]:
    """ViT-B/16, 224 px, batches of 8: images a second."""
    return _each(_PRECISIONS, lambda precision: _vit(places, precision, "B/16", 8))


def vit_image(places: Places) -> list[Contestant]:
    """ViT-B/16, 224 px, one image at a time: images a second."""
    variant = "Ti/16" if places.small else "B/16"
    shared = f"{variant} --batch=1 --precision"
    ours = f"kvision_vit {shared}"
    theirs = f"peers.timm_vit {shared}"
    return places.contestants(
        [
            ("kvision", "kvision TFLite, 8-bit weights", f"{ours}=dynamic"),
            ("kvision", "kvision TFLite, 8-bit activations too", f"{ours}=int8"),
            ("kvision", "kvision bfloat16", f"{ours}=bfloat16"),
            ("torch", "timm bfloat16, compiled", f"{theirs}=bfloat16 --compile"),
            ("torch", "timm 8-bit weights", f"{theirs}=int8"),
            ("keras_hub", "KerasHub float32", f"peers.keras_hub_vit {shared}=float32"),
        ],
        gflop=_VIT_GFLOP[variant],
        precision="bfloat16",
    )


def vit_training(places: Places) -> list[Contestant]:
    """ViT-Ti/16, 224 px, steps of training on batches of 32: images a second."""
    batch = 2 if places.small else 32
    return _each(
        _PRECISIONS,
        lambda precision: _vit(places, precision, "Ti/16", batch, "--train"),
    )


def _vit(
    places: Places,
    precision: str,
    variant: str,
    batch: int,
    *options: str,
    group: str = "",
) -> list[Contestant]:
    variant = "Ti/16" if places.small else variant
    entries = [
        ("kvision", f"kvision {precision}", "kvision_vit"),
        ("torch", f"timm {precision}, compiled", "peers.timm_vit --compile"),
        ("keras_hub", f"KerasHub {precision}", "peers.keras_hub_vit"),
    ]
    if "--train" in options:
        entries.insert(1, ("torch", f"timm {precision}", "peers.timm_vit"))
    return places.contestants(
        entries,
        variant,
        *options,
        f"--batch={batch}",
        f"--precision={precision}",
        units=batch,
        gflop=_VIT_GFLOP[variant] * (_STEP if "--train" in options else 1),
        precision=precision,
        group=group,
    )


def detector_inference(places: Places) -> list[Contestant]:
    """Mask R-CNN ResNet-50 FPN, one image of 800 x 1088 to pasted masks."""
    photo = _photo(places)
    return _each(
        _PRECISIONS,
        lambda precision: _detector(places, precision, *photo, gflop=_MASK_RCNN_GFLOP),
    )


def detector_tflite(places: Places) -> list[Contestant]:
    """Mask R-CNN ResNet-50 FPN in LiteRT, one image of 800 x 1088 to pasted masks.

    Lighter ones are `model.rebuilt(rpn_post_nms_top_k=300)`, one sample a bin
    `roi_align_sampling_ratio=1`; what they lose is under "Lighter TFLite detectors".
    """
    ours = [
        ("int8", "int8"),
        ("int8, 300 proposals, 1 sample", "int8 --proposals 300 --samples 1"),
        ("int8, 100 proposals, 1 sample", "int8 --proposals 100 --samples 1"),
        ("dynamic", "dynamic"),
    ]
    entries = [
        (
            "kvision",
            f"kvision TFLite {name}",
            f"kvision_detector --precision={options}",
        )
        for name, options in (ours[:1] if places.small else ours)
    ]
    entries += [
        (
            "torch",
            f"torchvision {precision}, channels-last",
            f"peers.torchvision_detector --precision={precision}",
        )
        for precision in _PRECISIONS
    ]
    return places.contestants(
        entries, *_photo(places), gflop=_MASK_RCNN_GFLOP, precision="bfloat16"
    )


def detector_training(places: Places) -> list[Contestant]:
    """Mask R-CNN ResNet-50 FPN, steps of training on one image of 800 x 1088."""
    photo = _photo(places)
    return _each(
        _PRECISIONS,
        lambda precision: _detector(
            places, precision, *photo, "--train", gflop=_MASK_RCNN_GFLOP
        ),
    )


def _photo(places: Places) -> list[str]:
    return ["--size", "128", "128"] if places.small else ["--size", "800", "1088"]


def _detector(
    places: Places, precision: str, *options: str, group: str = "", gflop: float = 0.0
) -> list[Contestant]:
    return places.contestants(
        [
            ("kvision", f"kvision {precision}", "kvision_detector"),
            (
                "torch",
                f"torchvision {precision}, channels-last",
                "peers.torchvision_detector",
            ),
        ],
        *options,
        f"--precision={precision}",
        gflop=gflop * (_STEP if "--train" in options else 1),
        precision=precision,
        group=group,
    )


def evaluation(places: Places) -> list[Contestant]:
    """COCO scores of boxes and masks, 100 detections an image: images a second.

    kvision begins with masks of 28 x 28 cells, as a detector gives them.
    """
    ours, theirs = "kvision_evaluation", "peers.pycocotools_evaluation"
    many, some = (20, 10) if places.small else (5000, 500)
    given = ("torch", "pycocotools, given pasted masks", theirs)
    whole = [("kvision", "kvision with the extra `fast`", ours), given]
    part = [
        ("kvision", "kvision", f"{ours} --core"),
        given,
        ("torch", "pycocotools, torchvision pastes", f"{theirs} --paste"),
    ]
    return _each(
        ((many, whole), (some, part)),
        lambda entries: places.contestants(
            entries[1],
            f"--images={entries[0]}",
            units=entries[0],
            group=f"{entries[0]} images",
        ),
    )


def coco_input(places: Places) -> list[Contestant]:
    """COCO photos to batches of 4 with masks, 640 px, mirrored, scaled by 0.5 to 1.5.

    Images a second.
    """
    if places.data is None:
        raise ValueError("coco_input reads photos: name their folder with --data")
    annotations = places.data / "annotations" / "instances_train2017.json"
    if not annotations.is_file():
        raise ValueError(f"--data must be a COCO data set: there is no {annotations}")
    return places.contestants(
        [
            ("kvision", "kvision", "kvision_input"),
            ("kvision", "kvision, colours changed too", "kvision_input --colour"),
            (
                "kvision",
                "TensorFlow decodes and resizes only",
                "kvision_input --decoding",
            ),
            ("torch", "torchvision, 2 workers", "peers.torchvision_input"),
            (
                "torch",
                "torchvision, 2 workers, colours changed too",
                "peers.torchvision_input --colour",
            ),
        ],
        str(annotations),
        str(places.data / "train2017"),
        "--batch=4",
        units=32,
    )


def start_up(places: Places) -> list[Contestant]:
    """A fresh Python and one import: how often a second."""
    return places.contestants(
        [
            ("kvision", "import kvision", "start_up kvision"),
            ("kvision", "import keras", "start_up keras"),
            ("torch", "import torchvision", "start_up torchvision"),
            ("torch", "import timm", "start_up timm"),
            ("keras_hub", "import keras_hub", "start_up keras_hub"),
        ]
    )


def export(places: Places) -> list[Contestant]:
    """ViT-B/16, 224 px, to a file, with kvision's comparison: how often a second."""
    variant = "Ti/16" if places.small else "B/16"
    forms = ("saved_model", "tflite")
    ours = [("kvision", f"kvision {f}", f"kvision_export --form={f}") for f in forms]
    theirs = [
        ("keras_hub", f"KerasHub {f}", f"peers.keras_hub_export --form={f}")
        for f in forms
    ]
    return places.contestants([*ours, *theirs], variant)


def image_sizes(places: Places) -> list[Contestant]:
    """How cost grows with the image: Mask R-CNN ResNet-50 FPN."""
    sides = (64, 128) if places.small else (256, 512, 1024)
    return _each(sides, lambda side: _square(places, side, f"{side} px"))


def batch_sizes(places: Places) -> list[Contestant]:
    """How cost grows with the batch: ViT-S/16, 224 px: images a second."""
    sizes = (1, 2) if places.small else (1, 4, 16, 64)
    return _each(
        sizes, lambda size: _vit(places, _SWEPT, "S/16", size, group=f"batch {size}")
    )


def objects(places: Places) -> list[Contestant]:
    """How cost of a step grows with the objects: Mask R-CNN ResNet-50 FPN, 512 px."""
    side, numbers = (128, (1, 2)) if places.small else (512, (1, 10, 100))
    return _each(
        numbers,
        lambda n: _square(places, side, f"{n} objects", "--train", f"--objects={n}"),
    )


def proposals(places: Places) -> list[Contestant]:
    """How cost grows with the proposals: Mask R-CNN ResNet-50 FPN, 512 px."""
    side, numbers = (128, (10, 20)) if places.small else (512, (100, 300, 1000, 2000))
    return _each(
        numbers, lambda n: _square(places, side, f"{n} proposals", f"--proposals={n}")
    )


def model_sizes(places: Places) -> list[Contestant]:
    """How cost grows with the model: ViT, 224 px, batches of 8: images a second."""
    variants = ("Ti/16",) if places.small else tuple(_VIT_GFLOP)
    return _each(variants, lambda name: _vit(places, _SWEPT, name, 8, group=name))


def _square(places: Places, side: int, group: str, *options: str) -> list[Contestant]:
    size = ("--size", str(side), str(side))
    return _detector(places, _SWEPT, *size, *options, group=group)


def _each(
    values: Iterable[_Value], contestants_of: Callable[[_Value], list[Contestant]]
) -> list[Contestant]:
    return [one for value in values for one in contestants_of(value)]


def limits(places: Places) -> list[Contestant]:
    """Matrix products of 2048 x 2048: what nothing made of products is faster than."""
    return _each(_PRECISIONS, lambda precision: _products(places, precision))


def _products(places: Places, precision: str) -> list[Contestant]:
    return places.contestants(
        [
            ("kvision", f"TensorFlow's product, {precision}", "products"),
            ("torch", f"torch's product, {precision}", "peers.products"),
        ],
        precision,
        gflop=2 * 2.048**3,
        precision=precision,
    )


SUITE: dict[str, Callable[[Places], list[Contestant]]] = {
    function.__name__: function
    for function in (
        vit_inference,
        vit_image,
        vit_training,
        detector_inference,
        detector_tflite,
        detector_training,
        evaluation,
        coco_input,
        start_up,
        export,
        image_sizes,
        batch_sizes,
        objects,
        proposals,
        model_sizes,
    )
}
