"""Patch embeddings of files for other patches than a model's."""

from typing import Any

import numpy as np

from kvision.ops.resampling import resize_patch_kernel
from kvision.weights.places import Convert

__all__ = ["resampled"]

Array = np.ndarray


def resampled(variable: Any, interpolation: str) -> Convert:
    """Make a function that brings a kernel to a model's patches.

    Args:
        variable: kernel (h, w, C, D) of the model.
        interpolation: see `kvision.ops.resampling`.

    Returns:
        Function of an array (any, any, C, D); it raises `ValueError` for another.
    """
    height, width, *widths = variable.shape

    def resize(kernel: Array) -> Array:
        if kernel.ndim != 4 or list(kernel.shape[2:]) != widths:
            raise ValueError(
                f"a kernel of {kernel.shape} cannot become one of "
                f"{tuple(variable.shape)}: only patches are resized, not channels. "
                "For images of other channels pass adapt_channels=True"
            )
        kernel = kernel.astype(np.float32)
        return resize_patch_kernel(kernel, (height, width), interpolation)

    return resize
