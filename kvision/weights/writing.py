"""Weights to safetensors."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from kvision.weights.dtypes import number_dtype
from kvision.weights.replacing import replacing

__all__ = ["write_safetensors"]


def write_safetensors(
    path: str | PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file; one of that name is replaced when it is whole.

    Args:
        path: the file; its folder exists.
        tensors: name -> array of numbers of any dtype that `read_checkpoint` gives.
        metadata: text that goes into the header.

    Raises:
        CheckpointError: if an array has something else than numbers.
    """
    arrays = {
        name: np.asarray(values, number_dtype(values.dtype), "C")
        for name, values in tensors.items()
    }
    with replacing(Path(path)) as unfinished:
        unfinished.touch()
        mode = unfinished.stat().st_mode
        save_file(arrays, unfinished, dict(metadata or {}))
        # The package lets nobody else read its files.
        unfinished.chmod(mode)
