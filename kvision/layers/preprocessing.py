"""What a classifier does to its images, and what must be done to photos before."""

from collections.abc import Sequence
from typing import Any

import keras

from kvision.layers.normalization import ImageNormalization

__all__ = ["ImagePreprocessing"]

_RESIZES = ("crop", "stretch", "pad")
_INTERPOLATIONS = ("bicubic", "bilinear")


@keras.saving.register_keras_serializable("kvision")
class ImagePreprocessing(ImageNormalization):
    """Normalise images, and say how photos of any size are brought to the input's.

    The resizing is not done here: photos of many sizes make no batch. Whoever brings
    photos, `kvision.classify` and the exported forms too, reads the rule here.

    Args:
        mean: of each channel (or one for all), in 0-255.
        std: of each channel (or one for all), in 0-255.
        resize: "crop" brings the shorter side to the input's size / `crop_fraction` and
            cuts the middle out; "stretch" ignores the aspect ratio; "pad" keeps it and
            fills up with 0 at the bottom and right.
        crop_fraction: share of the shorter side that "crop" keeps, in (0, 1].
        interpolation: "bicubic" or "bilinear", antialiased as Pillow's are.
        reverse_channels: whether the model wants BGR.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: for an unknown name or a share out of range.
    """

    def __init__(
        self,
        mean: Sequence[float] | float = 127.5,
        std: Sequence[float] | float = 127.5,
        resize: str = "crop",
        crop_fraction: float = 0.875,
        interpolation: str = "bicubic",
        reverse_channels: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(mean, std, reverse_channels, **kwargs)
        for name, value, known in (
            ("resize", resize, _RESIZES),
            ("interpolation", interpolation, _INTERPOLATIONS),
        ):
            if value not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}. Received: {value!r}"
                )
        if not 0 < crop_fraction <= 1:
            raise ValueError(
                f"crop_fraction must be in (0, 1]. Received: {crop_fraction}"
            )
        self.resize = resize
        self.crop_fraction = crop_fraction
        self.interpolation = interpolation

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "resize": self.resize,
            "crop_fraction": self.crop_fraction,
            "interpolation": self.interpolation,
        }
