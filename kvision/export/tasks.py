"""Which kind of model is exported: told from the model, never by an argument."""

from typing import Any

from kvision.export.classification import ClassificationTask
from kvision.export.classifier import is_classifier
from kvision.export.detection import DetectionTask

__all__ = ["Task", "task_of"]

Task = ClassificationTask | DetectionTask


def task_of(model: Any) -> Task:
    """Recognise what a model does.

    Args:
        model: a detector or a classifier of `kvision.models`.

    Returns:
        What its export needs, with its float32 twin.

    Raises:
        ValueError: it is neither.
    """
    if is_classifier(model):
        return ClassificationTask(model)
    return DetectionTask(model)
