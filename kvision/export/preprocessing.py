"""From the bytes of a photo to the model's input, inside a TensorFlow graph.

There are two rules, that of detectors (`fit`) and that of classifiers
(`kvision.ops.preparation`), the same as in `kvision.data` and in the edge runtime; the
tests hold the three together.
"""

from typing import Any

import tensorflow as tf

from kvision.export.classifier import Classifier
from kvision.export.orientation import exif_orientation, upright
from kvision.ops.preparation import prepare_tensor

__all__ = ["decode", "fit", "grey", "prepared"]

Tensor = Any


def decode(contents: Tensor, num_channels: int = 3) -> Tensor:
    """Decode a JPEG, PNG, GIF (first frame) or BMP file, upright.

    Args:
        contents: scalar string tensor, the bytes of the file.
        num_channels: 1 for grey, 3 for RGB, 4 for RGBA.

    Returns:
        (h, w, num_channels) uint8 tensor; the high byte of 16-bit values.
    """

    def any_format() -> Tensor:
        return tf.io.decode_image(
            contents, channels=num_channels, expand_animations=False
        )

    def jpeg() -> Tensor:
        # decode_image takes a faster transform, up to 4 off what Pillow and others do.
        return tf.io.decode_jpeg(
            contents, channels=num_channels, dct_method="INTEGER_ACCURATE"
        )

    image = (
        any_format()
        if num_channels == 4  # of which JPEG knows nothing
        else tf.cond(tf.io.is_jpeg(contents), jpeg, any_format)
    )
    image = tf.ensure_shape(image, (None, None, num_channels))
    return upright(image, exif_orientation(contents))


def fit(
    image: Tensor, image_size: tuple[int, int], resize: str
) -> tuple[Tensor, Tensor]:
    """Bring an image to the model's input size.

    Args:
        image: (h, w, C) uint8 tensor.
        image_size: (height, width) of the result in pixels.
        resize: "pad" keeps the aspect ratio and pads with 0 at the bottom and right;
            "stretch" does not.

    Returns:
        (H, W, C) uint8 tensor, and (y, x) scales, float32: pixels of the result =
        pixels of the image * scale.
    """
    old = tf.shape(image)[:2]
    new = _fitted_size(old, image_size, resize)
    resized = tf.cond(
        tf.reduce_all(old == new), lambda: image, lambda: _resample(image, new)
    )
    rest = tf.constant(image_size) - new
    padded = tf.pad(resized, [[0, rest[0]], [0, rest[1]], [0, 0]])
    scales = tf.cast(new, tf.float32) / tf.cast(old, tf.float32)
    return tf.ensure_shape(padded, (*image_size, image.shape[-1])), scales


def prepared(model: Any, image: Tensor) -> Tensor:
    """Bring an image to a model's input size by the rule of its kind.

    Args:
        model: a detector, or a `Classifier`.
        image: (h, w, C) uint8 tensor.

    Returns:
        (H, W, C) uint8 tensor.
    """
    if isinstance(model, Classifier):
        return prepare_tensor(
            image,
            model.image_size,
            model.resize,
            model.crop_fraction,
            model.interpolation,
        )
    return fit(image, model.image_size, model.resize)[0]


def grey(image: Tensor) -> Tensor:
    """Weigh the colours of an image as `kvision.classify` does.

    Args:
        image: (h, w, 3) uint8 tensor.

    Returns:
        (h, w, 1) uint8 tensor.
    """
    weights = tf.constant([0.299, 0.587, 0.114])
    values = tf.reduce_sum(tf.cast(image, tf.float32) * weights, axis=-1, keepdims=True)
    return tf.cast(tf.round(values), tf.uint8)


def _fitted_size(old: Tensor, image_size: tuple[int, int], resize: str) -> Tensor:
    if resize == "stretch":
        return tf.constant(image_size)
    size = tf.cast(old, tf.float64)
    scale = tf.reduce_min(tf.constant(image_size, tf.float64) / size)
    return tf.maximum(tf.cast(tf.floor(size * scale + 0.5), tf.int32), 1)


def _resample(image: Tensor, size: Tensor) -> Tensor:
    def bilinear(antialias: bool) -> Tensor:
        resized = tf.image.resize(image, size, antialias=antialias)
        return tf.cast(tf.round(resized), tf.uint8)

    # Where nothing shrinks the wide filter is the plain one, which is much faster.
    return tf.cond(
        tf.reduce_all(size >= tf.shape(image)[:2]),
        lambda: bilinear(antialias=False),
        lambda: bilinear(antialias=True),
    )
