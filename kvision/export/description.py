"""What travels with an exported model: its classes and how it wants its images."""

from typing import Any

from kvision.export.classifier import Classifier
from kvision.ops.tracing import require_tensorflow

__all__ = ["describe"]

_REGIONS = "x1, y1, x2, y2 in pixels of the input; rows of zeros are padding"


def describe(model: Any) -> dict[str, Any]:
    """Collect what a program needs to use a model without kvision.

    Args:
        model: a detector of `kvision.models`, or a `Classifier`.

    Returns:
        Values that json knows.

    Raises:
        ValueError: if `model` is not such a model, or Keras does not run on TensorFlow.
    """
    require_tensorflow("Exporting a model")
    for name in ("class_names", "image_size", "resize", "num_channels"):
        if not hasattr(model, name):
            raise ValueError(
                "Expected a detector of kvision.models or a classifier. Received a "
                f"{type(model).__name__} without {name}"
            )
    import kvision

    is_classifier = isinstance(model, Classifier)
    return {
        "kvision_version": kvision.__version__,
        "model": model.name,
        "task": "classification" if is_classifier else "detection",
        "class_names": list(model.class_names),
        "image_size": list(model.image_size),
        "num_channels": model.num_channels,
        "resize": model.resize,
        "input": "uint8 0..255, RGB; the model normalises",
        **(_of_classifier(model) if is_classifier else _of_detector(model)),
    }


def _of_classifier(model: Classifier) -> dict[str, Any]:
    found = {
        "crop_fraction": model.crop_fraction,
        "interpolation": model.interpolation,
        "logits": "one for each class; scores are their softmax",
    }
    if model.num_regions:
        found |= {"num_regions": model.num_regions, "regions": _REGIONS}
    return found


def _of_detector(model: Any) -> dict[str, Any]:
    config = model.get_config()
    return {
        "boxes": "x1, y1, x2, y2 in pixels of the input, x2 and y2 exclusive",
        "padding_label": -1,
        "max_detections": model.max_detections,
        "score_threshold": config["score_threshold"],
        "nms_iou_threshold": config["nms_iou_threshold"],
    }
