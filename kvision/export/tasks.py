"""Which kind of model is exported: told from the model, never by an argument."""

from collections.abc import Callable
from typing import Any

from kvision.export.classification import ClassificationTask
from kvision.export.classifier import is_classifier
from kvision.export.detection import DetectionTask
from kvision.export.twin import in_float32

__all__ = ["Task", "task_of"]

Task = ClassificationTask | DetectionTask


def task_of(model: Any, twin_of: Callable[[Any], Any] = in_float32) -> Task:
    """Recognise what a model does.

    Args:
        model: a detector or a classifier of `kvision.models`.
        twin_of: function from a model to the twin that is exported.

    Returns:
        What its export needs.

    Raises:
        ValueError: it is neither.
    """
    if is_classifier(model):
        return ClassificationTask(model, twin_of)
    return DetectionTask(model, twin_of)
