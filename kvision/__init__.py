"""Detection and segmentation models for Keras 3.

``import kvision as kv`` registers every layer and model class, so that
``keras.models.load_model`` needs no ``custom_objects``. Parts that pull in more than
Keras (files, scores, exports, drawing) are imported when they are first used.
"""

import importlib
from typing import Any

from kvision import layers, models, ops

__version__ = "0.1.0"

# Public name -> where it lives: a module, or "module:attribute".
_LAZY = {
    "callbacks": "kvision.train.callbacks",
    "classify": "kvision.predict:classify",
    "create": "kvision.models.presets:create",
    "data": "kvision.data",
    "detect": "kvision.predict:detect",
    "evaluation": "kvision.evaluation",
    "explain": "kvision.predict:explain",
    "export": "kvision.export",
    "predict": "kvision.predict",
    "train": "kvision.train",
    "viz": "kvision.viz",
    "weights": "kvision.weights",
}

__all__ = ["__version__", "layers", "models", "ops", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'kvision' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    value: Any = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
