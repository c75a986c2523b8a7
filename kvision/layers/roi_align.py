"""ROIAlign over a pyramid as a layer."""

from typing import Any

import keras
from keras import ops

from kvision.ops.roi import MODES, multilevel_roi_align

__all__ = ["ROIAlign"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class ROIAlign(keras.layers.Layer):
    """Pool regions to a fixed grid from the pyramid level that fits their size.

    Args:
        image_size: (height, width) of the model input in pixels.
        output_size: bins along each side.
        sampling_ratio: samples a bin along each axis; 0: as many as it has cells, as in
            detectron2.
        mode: "unaligned" (torchvision), "aligned" (detectron2) or "crop_and_resize"
            (`tf.image.crop_and_resize`); see `kvision.ops.roi`.
        canonical_level: pyramid level of regions of `canonical_size`.
        canonical_size: square root of the area, in pixels.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: for an unknown mode, or a negative ratio.

    Source: He et al. 2017, Mask R-CNN, section 3.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        output_size: int = 7,
        sampling_ratio: int = 2,
        mode: str = "unaligned",
        canonical_level: int = 4,
        canonical_size: float = 224.0,
        **kwargs: Any,
    ) -> None:
        # Under a half-precision policy Keras would round boxes of hundreds of pixels
        # to multiples of 2 or 4.
        super().__init__(autocast=False, **kwargs)
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}. Received: mode={mode!r}")
        if sampling_ratio < 0:
            raise ValueError(
                "sampling_ratio must be at least 1, or 0 for as many samples as a bin "
                f"has cells. Received: sampling_ratio={sampling_ratio}"
            )
        self.image_size = tuple(image_size)
        self.output_size = output_size
        self.sampling_ratio = sampling_ratio
        self.mode = mode
        self.canonical_level = canonical_level
        self.canonical_size = canonical_size

    def call(
        self,
        features: dict[str, Tensor],
        rois: Tensor,
        image_indices: Tensor | None = None,
    ) -> Tensor:
        """Pool regions.

        Args:
            features: {"P2": (B, h, w, C), ...}; the number is the level, its stride
                2 to the power of it.
            rois: (B, R, 4) float32 boxes in pixels, or (N, 4) with `image_indices`.
            image_indices: (N,) int32: the image of each of the N regions.

        Returns:
            (B, R, S, S, C), or (N, S, S, C) with `image_indices`, in the compute dtype.
        """
        levels = {
            int(name[1:]): ops.cast(feature, self.compute_dtype)
            for name, feature in features.items()
        }
        flat = image_indices is not None
        if not flat:
            batch, number = ops.shape(rois)[0], rois.shape[1]
            image_indices = ops.repeat(ops.arange(batch, dtype="int32"), number)
        pooled = multilevel_roi_align(
            levels,
            ops.cast(ops.reshape(rois, (-1, 4)), "float32"),
            image_indices,
            self.image_size,
            self.output_size,
            self.sampling_ratio,
            self.mode,
            self.canonical_level,
            self.canonical_size,
        )
        bins = (self.output_size, self.output_size, pooled.shape[-1])
        return ops.reshape(pooled, (-1, *bins) if flat else (-1, number, *bins))

    def compute_output_spec(
        self,
        features: dict[str, Tensor],
        rois: Tensor,
        image_indices: Tensor | None = None,
    ) -> Tensor:
        """Append (S, S, C) to the leading dimensions of the regions."""
        channels = next(iter(features.values())).shape[-1]
        bins = (self.output_size, self.output_size, channels)
        return keras.KerasTensor((*rois.shape[:-1], *bins), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "output_size": self.output_size,
            "sampling_ratio": self.sampling_ratio,
            "mode": self.mode,
            "canonical_level": self.canonical_level,
            "canonical_size": self.canonical_size,
        }
