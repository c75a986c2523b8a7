"""`save`: the weights of a model as safetensors."""

from importlib import metadata
from os import PathLike
from typing import Any

import numpy as np

from kvision.weights.kvision import variables
from kvision.weights.writing import write_safetensors

__all__ = ["save"]


def save(model: Any, path: str | PathLike[str]) -> None:
    """Write the weights of a model, which `kvision.weights.load` reads.

    The names are the paths of the variables. A file of that name is replaced when the
    new one is whole.

    Args:
        model: a built model of `kvision.models`.
        path: the safetensors file; its folder exists.

    Raises:
        ValueError: two weights have the same path.
    """
    arrays = {name: np.asarray(x) for name, x in variables(model).items()}
    write_safetensors(path, arrays, {"kvision": metadata.version("kvision")})
