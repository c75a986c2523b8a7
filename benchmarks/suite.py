"""What is measured, and who takes part in it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contest import Contestant

__all__ = ["SUITE", "Places", "limits"]

# Billions of operations in the matrix products of an image, forward: twice the
# multiply-adds that timm and torchvision state.
_VIT_GFLOP = {"Ti/16": 2.52, "S/16": 9.2, "B/16": 35.2, "L/16": 123.2}
_MASK_RCNN_GFLOP = 268.8
# A step of training computes gradients of inputs and weights as well.
_STEP = 3

_PRECISIONS = ("bfloat16", "float32")


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
    ) -> list[Contestant]:
        """Make contestants of those whose environment is there.

        Args:
            entries: (environment, name, module and options of its own) of each.
            *options: of all.
            units: of a call.
            gflop: of a unit.
            precision: of the products.

        Returns:
            Contestants.
        """
        return [
            Contestant(
                name,
                [self.pythons[kind], "-m", *f"benchmarks.{module}".split(), *options],
                units,
                gflop,
                precision,
            )
            for kind, name, module in entries
            if kind in self.pythons
        ]


def vit_inference(places: Places) -> list[Contestant]:
    """ViT-B/16, 224 px, batches of 8: images a second."""
    return _vit_inference(places, "B/16", 8)


def _vit_inference(
    places: Places, variant: str, batch: int, note: str = ""
) -> list[Contestant]:
    variant = "Ti/16" if places.small else variant
    return [
        contestant
        for precision in _PRECISIONS
        for contestant in places.contestants(
            [
                ("kvision", f"kvision {precision}{note}", "kvision_vit"),
                ("torch", f"timm {precision}, compiled{note}", "peers.timm_vit"),
                ("keras_hub", f"KerasHub {precision}{note}", "peers.keras_hub_vit"),
            ],
            variant,
            f"--batch={batch}",
            f"--precision={precision}",
            units=batch,
            gflop=_VIT_GFLOP[variant],
            precision=precision,
        )
    ]


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
            ("torch", "timm bfloat16, compiled", f"{theirs}=bfloat16"),
            ("torch", "timm 8-bit weights", f"{theirs}=int8"),
            ("keras_hub", "KerasHub float32", f"peers.keras_hub_vit {shared}=float32"),
        ],
        gflop=_VIT_GFLOP[variant],
        precision="bfloat16",
    )


def vit_training(places: Places) -> list[Contestant]:
    """ViT-Ti/16, 224 px, steps of training on batches of 32: images a second."""
    batch = 2 if places.small else 32
    return [
        contestant
        for precision in _PRECISIONS
        for contestant in places.contestants(
            [
                ("kvision", f"kvision {precision}", "kvision_vit"),
                ("torch", f"timm {precision}", "peers.timm_vit"),
                ("keras_hub", f"KerasHub {precision}", "peers.keras_hub_vit"),
            ],
            "Ti/16",
            "--train",
            f"--batch={batch}",
            f"--precision={precision}",
            units=batch,
            gflop=_VIT_GFLOP["Ti/16"] * _STEP,
            precision=precision,
        )
    ]


def detector_inference(places: Places) -> list[Contestant]:
    """Mask R-CNN ResNet-50 FPN, one image of 800 x 1088 to pasted masks."""
    return _detector(places)


def detector_tflite(places: Places) -> list[Contestant]:
    """Mask R-CNN ResNet-50 FPN in LiteRT, one image of 800 x 1088 to pasted masks.

    Lighter ones are `model.rebuilt(rpn_post_nms_top_k=300)`, one sample a bin
    `roi_align_sampling_ratio=1`; what they lose is under "Lighter TFLite detectors".
    """
    ours = [
        ("int8, 300 proposals, 1 sample", "int8 --proposals 300 --samples 1"),
        ("int8, 300 proposals", "int8 --proposals 300"),
        ("int8", "int8"),
        ("dynamic, 300 proposals, 1 sample", "dynamic --proposals 300 --samples 1"),
        ("dynamic", "dynamic"),
    ]
    entries = [
        (
            "kvision",
            f"kvision TFLite {name}",
            f"kvision_detector --precision={options}",
        )
        for name, options in (ours[2:3] if places.small else ours)
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
        entries, *_image(places), gflop=_MASK_RCNN_GFLOP, precision="bfloat16"
    )


def detector_training(places: Places) -> list[Contestant]:
    """Mask R-CNN ResNet-50 FPN, steps of training on one image of 800 x 1088."""
    return _detector(places, "--train")


def _image(places: Places) -> list[str]:
    return ["--size", "128", "128"] if places.small else ["--size", "800", "1088"]


def _detector(places: Places, *options: str) -> list[Contestant]:
    return [
        contestant
        for precision in _PRECISIONS
        for contestant in places.contestants(
            [
                ("kvision", f"kvision {precision}", "kvision_detector"),
                (
                    "torch",
                    f"torchvision {precision}, channels-last",
                    "peers.torchvision_detector",
                ),
            ],
            *_image(places),
            *options,
            f"--precision={precision}",
            gflop=_MASK_RCNN_GFLOP * (_STEP if "--train" in options else 1),
            precision=precision,
        )
    ]


def evaluation(places: Places) -> list[Contestant]:
    """COCO scores of boxes and masks, 100 detections an image: images a second.

    500 images; time grows with their number. kvision begins with masks of 28 x 28
    cells, as a detector gives them.
    """
    number = 20 if places.small else 500
    return places.contestants(
        [
            ("kvision", "kvision with the extra `fast`", "kvision_evaluation"),
            ("kvision", "kvision", "kvision_evaluation --core"),
            (
                "torch",
                "pycocotools, given pasted masks",
                "peers.pycocotools_evaluation",
            ),
            (
                "torch",
                "pycocotools, torchvision pastes",
                "peers.pycocotools_evaluation --paste",
            ),
        ],
        f"--images={number}",
        units=number,
    )


def coco_input(places: Places) -> list[Contestant]:
    """COCO photos to batches of 4 with masks, 640 px, mirrored, scaled by 0.5 to 1.5.

    Images a second.
    """
    if places.data is None:
        raise ValueError("coco_input reads photos: name their folder with --data")
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
        str(places.data / "annotations" / "instances_train2017.json"),
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
    """How cost grows with the image: Mask R-CNN ResNet-50 FPN, bfloat16."""
    sides = (64, 128) if places.small else (256, 512, 1024)
    return [
        contestant
        for side in sides
        for contestant in _swept(places, f"{side} px", f"--size {side} {side}")
    ]


def batch_sizes(places: Places) -> list[Contestant]:
    """How cost grows with the batch: ViT-S/16, 224 px: images a second."""
    batches = (1, 2) if places.small else (1, 4, 16, 64)
    return [
        contestant
        for batch in batches
        for contestant in _vit_inference(places, "S/16", batch, f", batch {batch}")
        if "bfloat16" in contestant.name
    ]


def objects(places: Places) -> list[Contestant]:
    """How cost of a step grows with the objects: Mask R-CNN ResNet-50, 512 px."""
    numbers = (1, 2) if places.small else (1, 10, 100)
    side = 128 if places.small else 512
    return [
        contestant
        for number in numbers
        for contestant in _swept(
            places,
            f"{number} objects",
            f"--size {side} {side} --train --objects {number}",
        )
    ]


def proposals(places: Places) -> list[Contestant]:
    """How cost grows with the proposals: Mask R-CNN ResNet-50, 512 px."""
    numbers = (10, 20) if places.small else (100, 300, 1000, 2000)
    side = 128 if places.small else 512
    return [
        contestant
        for number in numbers
        for contestant in _swept(
            places,
            f"{number} proposals",
            f"--size {side} {side} --proposals {number}",
        )
    ]


def model_sizes(places: Places) -> list[Contestant]:
    """How cost grows with the model: ViT, 224 px, batches of 8: images a second."""
    variants = ("Ti/16",) if places.small else ("Ti/16", "S/16", "B/16", "L/16")
    return [
        contestant
        for variant in variants
        for contestant in _vit_inference(places, variant, 8, f", {variant}")
        if "bfloat16" in contestant.name
    ]


def _swept(places: Places, note: str, options: str) -> list[Contestant]:
    return places.contestants(
        [
            ("kvision", f"kvision, {note}", "kvision_detector"),
            ("torch", f"torchvision, {note}", "peers.torchvision_detector"),
        ],
        "--precision=bfloat16",
        *options.split(),
    )


def limits(places: Places) -> list[Contestant]:
    """Matrix products of 2048 x 2048: what nothing made of products is faster than."""
    return [
        contestant
        for precision in _PRECISIONS
        for contestant in places.contestants(
            [
                ("kvision", f"TensorFlow's product, {precision}", "products"),
                ("torch", f"torch's product, {precision}", "peers.products"),
            ],
            precision,
            gflop=2 * 2.048**3,
            precision=precision,
        )
    ]


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
