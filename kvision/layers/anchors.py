"""Anchors of a whole pyramid as a layer without weights."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kvision.ops import boxes as box_ops
from kvision.ops.anchors import level_anchors

__all__ = ["Anchors"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class Anchors(keras.layers.Layer):
    """Lay anchor boxes over the cells of each pyramid level.

    Args:
        image_size: (height, width) of the model input in pixels.
        sizes: for each level, finest first, a number or the numbers of pixels that
            are the square roots of the areas of its anchors.
        aspect_ratios: height / width of the anchors of every cell.
        rounded: whether corners are rounded to whole pixels, as in torchvision.
        strides: for each level the pixels from cell to cell, as in detectron2; None for
            whole fractions of the image, as in torchvision. The two differ where a
            stride does not divide the image.
        inclusive: whether anchors end at their last pixel, as in matterport's Mask
            R-CNN (`kvision.ops.boxes.to_inclusive`).
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: at call time, if there are more or fewer levels than `sizes` or
            `strides`.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        sizes: Sequence[float | Sequence[float]] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rounded: bool = True,
        strides: Sequence[int] | None = None,
        inclusive: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        height, width = image_size
        self.image_size = (height, width)
        self.sizes = [_as_list(size) for size in sizes]
        self.aspect_ratios = list(aspect_ratios)
        self.rounded = rounded
        self.strides = None if strides is None else list(strides)
        self.inclusive = inclusive

    @property
    def num_anchors(self) -> list[int]:
        """Number of anchors of a cell, for each level."""
        return [len(sizes) * len(self.aspect_ratios) for sizes in self.sizes]

    def call(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make {"P2": (h * w * anchors, 4), ...} in pixels for {"P2": (B, h, w, C)}."""
        strides: Sequence[int | None] = self.strides or [None] * len(self.sizes)
        if not len(features) == len(self.sizes) == len(strides):
            raise ValueError(
                "sizes and strides must have one entry for each of the "
                f"{len(features)} levels {sorted(features)}. Received: "
                f"sizes={self.sizes}, strides={self.strides}"
            )
        return {
            name: self._of_level(features[name].shape[1:3], of_size, stride)
            for name, of_size, stride in zip(
                sorted(features), self.sizes, strides, strict=True
            )
        }

    def _of_level(
        self, grid_size: tuple[int, int], sizes: list[float], stride: int | None
    ) -> Tensor:
        anchors = ops.convert_to_tensor(
            level_anchors(
                grid_size,
                self.image_size,
                sizes,
                self.aspect_ratios,
                self.rounded,
                stride,
            )
        )
        if self.inclusive:
            return box_ops.to_inclusive(anchors, self.image_size)
        return anchors

    def compute_output_shape(self, input_shape: dict[str, Shape]) -> dict[str, Shape]:
        """Count the anchors of each level."""
        return {
            name: (input_shape[name][1] * input_shape[name][2] * number, 4)
            for name, number in zip(sorted(input_shape), self.num_anchors, strict=True)
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "sizes": self.sizes,
            "aspect_ratios": self.aspect_ratios,
            "rounded": self.rounded,
            "strides": self.strides,
            "inclusive": self.inclusive,
        }


def _as_list(size: float | Sequence[float]) -> list[float]:
    return [size] if isinstance(size, int | float) else list(size)
