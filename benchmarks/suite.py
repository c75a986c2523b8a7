"""What is measured, and who takes part in it."""

from collections.abc import Callable

from benchmarks.contest import Contestant

__all__ = ["SUITE"]

Pythons = dict[str, str]


def _module(pythons: Pythons, kind: str, module: str, *options: str) -> list[str]:
    return [pythons[kind], "-m", f"benchmarks.{module}", *options]


def vit_inference(pythons: Pythons, batch: int = 8) -> list[Contestant]:
    """Return ViT-B/16, 224 px, in batches: images a second."""
    shared = ["B/16", f"--batch={batch}"]
    entries = [
        ("kvision", "kvision bfloat16", "kvision_vit", "--precision=bfloat16"),
        ("kvision", "kvision float32", "kvision_vit", "--precision=float32"),
        ("torch", "timm bfloat16, compiled", "peers.timm_vit", "--precision=bfloat16"),
        ("torch", "timm float32, compiled", "peers.timm_vit", "--precision=float32"),
        (
            "keras_hub",
            "KerasHub bfloat16",
            "peers.keras_hub_vit",
            "--precision=bfloat16",
        ),
        ("keras_hub", "KerasHub float32", "peers.keras_hub_vit", "--precision=float32"),
    ]
    return [
        Contestant(name, _module(pythons, kind, module, *shared, option), batch)
        for kind, name, module, option in entries
        if kind in pythons
    ]


def vit_image(pythons: Pythons) -> list[Contestant]:
    """Return ViT-B/16, 224 px, one image at a time: images a second."""
    shared = ["B/16", "--batch=1"]
    entries = [
        ("kvision", "kvision TFLite, dynamic", "kvision_vit", "--precision=dynamic"),
        ("torch", "timm bfloat16, compiled", "peers.timm_vit", "--precision=bfloat16"),
        ("torch", "timm int8, dynamic", "peers.timm_vit", "--precision=int8"),
    ]
    return [
        Contestant(name, _module(pythons, kind, module, *shared, option), 1)
        for kind, name, module, option in entries
        if kind in pythons
    ]


def vit_training(pythons: Pythons, batch: int = 32) -> list[Contestant]:
    """Return ViT-Ti/16, 224 px, steps of training: images a second."""
    shared = ["Ti/16", f"--batch={batch}", "--train"]
    kinds = [
        ("kvision", "kvision", "kvision_vit"),
        ("torch", "timm", "peers.timm_vit"),
        ("keras_hub", "KerasHub", "peers.keras_hub_vit"),
    ]
    return [
        Contestant(
            f"{name} {precision}",
            _module(pythons, kind, module, *shared, f"--precision={precision}"),
            batch,
        )
        for precision in ("bfloat16", "float32")
        for kind, name, module in kinds
        if kind in pythons
    ]


def detector_inference(pythons: Pythons) -> list[Contestant]:
    """Return Mask R-CNN R50-FPN, one image of 800 x 1088 to pasted masks."""
    return _detector(pythons)


def detector_training(pythons: Pythons) -> list[Contestant]:
    """Return Mask R-CNN R50-FPN, a step of training on one image of 800 x 1088."""
    return _detector(pythons, "--train")


def _detector(pythons: Pythons, *options: str) -> list[Contestant]:
    kinds = [
        ("kvision", "kvision", "kvision_detector"),
        ("torch", "torchvision", "peers.torchvision_detector"),
    ]
    return [
        Contestant(
            f"{name} {precision}",
            _module(pythons, kind, module, *options, f"--precision={precision}"),
            1,
        )
        for precision in ("bfloat16", "float32")
        for kind, name, module in kinds
        if kind in pythons
    ]


def products(pythons: Pythons) -> list[Contestant]:
    """Return matrix products of 2048 x 2048, in GFLOP: what nothing is faster than."""
    kinds = [
        ("kvision", "TensorFlow", "products"),
        ("torch", "torch", "peers.products"),
    ]
    return [
        Contestant(f"{name} {precision}", _module(pythons, kind, module, precision), 17)
        for precision in ("bfloat16", "float32")
        for kind, name, module in kinds
        if kind in pythons
    ]


SUITE: dict[str, Callable[[Pythons], list[Contestant]]] = {
    function.__name__: function
    for function in (
        vit_inference,
        vit_image,
        vit_training,
        detector_inference,
        detector_training,
        products,
    )
}
