"""Where every classifier begins and ends: prepared images, and logits of classes."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import keras

from kvision import layers

__all__ = [
    "IMAGENET",
    "MINUS_ONE_TO_ONE",
    "check_image_size",
    "classify",
    "image_input",
    "policy_of",
]

Tensor = Any
Normalization = tuple[Any, Any]

IMAGENET: Normalization = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
MINUS_ONE_TO_ONE: Normalization = (127.5, 127.5)

_DEFAULT_NUM_CLASSES = 1000


def policy_of(dtype: Any) -> keras.DTypePolicy:
    """Return the dtype policy that `dtype=` of a builder stands for.

    Args:
        dtype: name, policy or None for the global one.

    Returns:
        The policy.
    """
    return keras.dtype_policies.get(dtype or keras.config.dtype_policy())


def image_input(
    image_size: tuple[int, int],
    num_channels: int = 3,
    *,
    normalization: Normalization = MINUS_ONE_TO_ONE,
    resize: str = "crop",
    crop_fraction: float = 0.9,
    interpolation: str = "bicubic",
    dtype: Any = None,
) -> tuple[Tensor, Tensor]:
    """Make the input of a classifier.

    Args:
        image_size: (height, width) in pixels.
        num_channels: channels of the images.
        normalization: (mean, std) in 0-255. Of those of RGB there is only the average
            where the images have other channels.
        resize: how photos are brought to `image_size`; see `ImagePreprocessing`.
        crop_fraction: the same.
        interpolation: the same.
        dtype: dtype policy; None for the global one.

    Returns:
        Images (B, H, W, C) in 0-255, and the same normalised.

    Raises:
        ValueError: for an argument out of range.
    """
    check_image_size(image_size)
    height, width = image_size
    mean, std = (_for_channels(values, num_channels) for values in normalization)
    images = keras.Input((height, width, num_channels), name="images")
    preprocessing = layers.ImagePreprocessing(
        mean,
        std,
        resize,
        crop_fraction,
        interpolation,
        dtype=policy_of(dtype),
        name="preprocessing",
    )
    return images, preprocessing(images)


def check_image_size(image_size: Any) -> None:
    """Refuse what is not (height, width).

    Args:
        image_size: what was given.

    Raises:
        ValueError: it is not two whole numbers of pixels.
    """
    is_pair = isinstance(image_size, list | tuple) and len(image_size) == 2
    if not is_pair or not all(
        isinstance(side, Integral) and int(side) > 0 for side in image_size
    ):
        raise ValueError(
            f"image_size must be (height, width) in pixels. Received: {image_size!r}"
        )


def _for_channels(values: Any, num_channels: int) -> Any:
    if isinstance(values, int | float) or len(values) == num_channels:
        return values
    return sum(values) / len(values)


def classify(
    pooled: Tensor,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    *,
    dropout: float = 0.0,
    dtype: Any = None,
    name: str = "head",
) -> Tensor:
    """End a classifier.

    Args:
        pooled: features (B, D).
        num_classes: K; 0 for no head. By default the number of names, or 1000.
        class_names: names of the classes, or None.
        dropout: share of the features dropped in training.
        dtype: dtype policy; None for the global one.
        name: of the layer.

    Returns:
        Logits (B, K), or `pooled` without a head.

    Raises:
        ValueError: if there are not K different names.
    """
    if num_classes is None:
        num_classes = len(class_names) if class_names else _DEFAULT_NUM_CLASSES
    if num_classes == 0:
        return pooled
    if dropout:
        drop = keras.layers.Dropout(
            dropout, dtype=policy_of(dtype), name=f"{name}_dropout"
        )
        pooled = drop(pooled)
    head = layers.ClassificationHead(
        num_classes, class_names, dtype=policy_of(dtype), name=name
    )
    return head(pooled)
