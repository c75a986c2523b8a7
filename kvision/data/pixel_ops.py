"""Pillow's changes of colour, sharpness and place, as TensorFlow ops on one image.

`ImageOps`, `ImageEnhance`, `ImageFilter.GaussianBlur` and `Image.transform` of Pillow,
whose arithmetic (look-up tables, truncation, the order of rounding) is followed, so
that recipes written for timm or torchvision see the same pixels. Everywhere an image
is a (H, W, C) uint8 tensor with C 1 or 3, and the result is one too.
"""

import math
from typing import Any

import tensorflow as tf

__all__ = [
    "auto_contrast",
    "blend",
    "box_mask",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "gaussian_blur",
    "grey",
    "invert",
    "posterize",
    "rotation",
    "sharpness",
    "solarize",
    "solarize_add",
    "transform",
    "turn_hue",
]

# ITU-R 601-2 in 16 bits, as libImaging/Convert.c has it.
_LUMA = (19595, 38470, 7471)


# Tables: each value of a channel has its new value


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    """Stretch each channel to 0..255; `ImageOps.autocontrast`."""
    low = tf.cast(tf.reduce_min(image, axis=(0, 1)), tf.float64)
    high = tf.cast(tf.reduce_max(image, axis=(0, 1)), tf.float64)
    scale = tf.math.divide_no_nan(tf.constant(255.0, tf.float64), high - low)
    values = tf.range(256, dtype=tf.float64)[:, None]
    stretched = tf.clip_by_value(values * scale - low * scale, 0.0, 255.0)
    # A channel of one value stays as it is.
    return _look_up(image, tf.where(high > low, stretched, values))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Make the values of each channel equally frequent; `ImageOps.equalize`."""
    channels = image.shape[-1]
    offsets = tf.range(channels) * 256
    counts = tf.math.bincount(
        tf.reshape(tf.cast(image, tf.int32) + offsets, [-1]),
        minlength=256 * channels,
        maxlength=256 * channels,
    )
    counts = tf.transpose(tf.reshape(counts, (channels, 256)))
    brightest = tf.reduce_max(image, axis=(0, 1))
    total = tf.reduce_sum(counts, axis=0)
    last = tf.gather(tf.transpose(counts), tf.cast(brightest, tf.int32), batch_dims=1)
    step = (total - last) // 255
    before = tf.cumsum(counts, axis=0, exclusive=True)
    table = (step // 2 + before) // tf.maximum(step, 1)
    unchanged = tf.range(256)[:, None] + tf.zeros_like(table)
    return _look_up(image, tf.where(step > 0, tf.minimum(table, 255), unchanged))


def _look_up(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Replace values by a (256, C) table, of which fractions are cut off."""
    channels = image.shape[-1]
    table = tf.reshape(tf.cast(table, tf.uint8), [-1])
    places = tf.cast(image, tf.int32) * channels + tf.range(channels)
    return tf.ensure_shape(tf.gather(table, places), image.shape)


def invert(image: tf.Tensor) -> tf.Tensor:
    """Make the negative; `ImageOps.invert`."""
    return 255 - image


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keep the highest `bits` (int32, 0 to 8) of each value; `ImageOps.posterize`."""
    mask = 256 - tf.bitwise.left_shift(1, 8 - bits)
    return tf.bitwise.bitwise_and(image, tf.cast(mask, tf.uint8))


def solarize(image: tf.Tensor, threshold: Any = 128) -> tf.Tensor:
    """Invert the values from `threshold` (0 to 256) up; `ImageOps.solarize`."""
    above = tf.cast(image, tf.int32) >= threshold
    return tf.where(above, 255 - image, image)


def solarize_add(image: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
    """Add to the values below 128; what passes 255 stays there (timm's op)."""
    values = tf.cast(image, tf.int32)
    more = tf.cast(tf.minimum(values + added, 255), tf.uint8)
    return tf.where(values < 128, more, image)


# Enhancement: away from a degenerate image, or towards it


def blend(degenerate: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Mix two images, or go beyond the second; `Image.blend`.

    Args:
        degenerate: result for factor 0; broadcasts.
        image: result for factor 1.
        factor: scalar; above 1 differences grow.

    Returns:
        uint8 tensor; fractions are cut off.
    """
    start = tf.cast(degenerate, tf.float32)
    change = tf.cast(factor, tf.float32) * (tf.cast(image, tf.float32) - start)
    return tf.cast(tf.clip_by_value(start + change, 0.0, 255.0), tf.uint8)


def grey(image: tf.Tensor) -> tf.Tensor:
    """Compute the luma, (H, W, 1) uint8; `Image.convert("L")`."""
    if image.shape[-1] == 1:
        return image
    weighted = tf.cast(image, tf.int32) * tf.constant(_LUMA)
    total = tf.reduce_sum(weighted, axis=-1, keepdims=True) + 0x8000
    return tf.cast(tf.bitwise.right_shift(total, 16), tf.uint8)


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Change the saturation; 0 is grey. `ImageEnhance.Color`."""
    return blend(grey(image), image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Change the distance from the mean luma; `ImageEnhance.Contrast`."""
    # The mean of whole numbers, rounded half up.
    total = tf.reduce_sum(tf.cast(grey(image), tf.int64))
    pixels = tf.size(image[..., 0], out_type=tf.int64)
    mean = (2 * total + pixels) // (2 * pixels)
    return blend(mean, image, factor)


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiply; 0 is black. `ImageEnhance.Brightness`."""
    return blend(tf.zeros_like(image), image, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Sharpen, or smooth below 1; `ImageEnhance.Sharpness`."""
    values = tf.cast(image, tf.int32)
    rows = values[:-2] + values[1:-1] + values[2:]
    around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    middle = values[1:-1, 1:-1]
    # The kernel of `ImageFilter.SMOOTH`: 5 amid ones, by 13; rounded.
    smooth = tf.cast((2 * (around + 4 * middle) + 13) // 26, tf.uint8)
    # The frame has no neighbours; Pillow leaves it as it is.
    inner = tf.pad(smooth, [[1, 1], [1, 1], [0, 0]])
    is_inner = tf.pad(tf.ones_like(smooth, tf.bool), [[1, 1], [1, 1], [0, 0]])
    return blend(tf.where(is_inner, inner, image), image, factor)


def turn_hue(image: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """Turn the colour circle by a part of it, -0.5 to 0.5, as HSV has it."""
    if image.shape[-1] == 1:
        return image
    return tf.image.adjust_hue(image, tf.cast(part, tf.float32))


# Blur


def gaussian_blur(image: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """Blur as `ImageFilter.GaussianBlur` does: by three box blurs each way.

    Args:
        image: (H, W, C) uint8 tensor.
        radius: standard deviation in pixels, float scalar from 0 to 2.

    Returns:
        uint8 tensor. Gwosdek et al. 2011, Theoretical Foundations of Gaussian
        Convolution by Extended Box Filtering.
    """
    weights = _box_weights(tf.cast(radius, tf.float32))
    values = tf.cast(image, tf.uint32)
    for axis in (1, 0):
        for _ in range(3):
            values = _box_blur(values, axis, weights)
    return tf.cast(values, tf.uint8)


_WIDEST = 2  # pixels to each side that a box reaches for a radius of up to 2
_BITS = 24  # of the fractions of Pillow's whole-number weights


def _box_weights(radius: tf.Tensor) -> list[tf.Tensor]:
    """Weights, by distance, of a box of which three make a Gaussian; uint32."""
    variance = radius * radius / 3.0
    edge = tf.floor((tf.sqrt(12.0 * variance + 1.0) - 1.0) / 2.0)
    rim = (2.0 * edge + 1.0) * (edge * (edge + 1.0) - 3.0 * variance)
    box = edge + rim / (6.0 * (variance - (edge + 1.0) ** 2))
    one = tf.constant(2**_BITS, tf.float32)
    inner = tf.floor(one / (2.0 * box + 1.0))
    # The pixel at the rim is covered in part.
    outer = tf.floor((one - (2.0 * edge + 1.0) * inner) / 2.0)
    return [
        tf.cast(
            tf.where(
                tf.constant(float(distance)) <= edge,
                inner,
                tf.where(distance == edge + 1.0, outer, 0.0),
            ),
            tf.uint32,
        )
        for distance in range(_WIDEST + 1)
    ]


def _box_blur(values: tf.Tensor, axis: int, weights: list[tf.Tensor]) -> tf.Tensor:
    length = tf.shape(values)[axis]
    places = tf.clip_by_value(tf.range(-_WIDEST, length + _WIDEST), 0, length - 1)
    padded = tf.gather(values, places, axis=axis)
    total = tf.zeros_like(values) + tf.constant(2 ** (_BITS - 1), tf.uint32)
    for offset in range(-_WIDEST, _WIDEST + 1):
        first = [0, 0, 0]
        first[axis] = offset + _WIDEST
        shifted = tf.slice(padded, first, tf.shape(values))
        total += weights[abs(offset)] * shifted
    return tf.bitwise.right_shift(total, tf.constant(_BITS, tf.uint32))


# Place


def transform(
    image: tf.Tensor,
    matrix: tf.Tensor,
    interpolation: str = "bicubic",
    fill: tuple[int, ...] = (128, 128, 128),
) -> tf.Tensor:
    """Move by an affine map; `Image.transform(size, AFFINE, ...)`.

    Args:
        image: (H, W, C) uint8 tensor.
        matrix: (2, 3) float64 tensor; takes (x, y, 1) of the result, in pixels, to
            the (x, y) in `image` that is seen there.
        interpolation: "bicubic" (Pillow's, sharper than that of its resizing) or
            "bilinear".
        fill: colour of what lies outside the image, C values.

    Returns:
        uint8 tensor of the same shape.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    x = tf.range(width, dtype=tf.float64)[None, :] + 0.5
    y = tf.range(height, dtype=tf.float64)[:, None] + 0.5
    across = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    down = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    is_inside = (
        (across >= 0.0)
        & (across < tf.cast(width, tf.float64))
        & (down >= 0.0)
        & (down < tf.cast(height, tf.float64))
    )
    taps = _cubic if interpolation == "bicubic" else _linear
    columns, column_weights = _taps(across - 0.5, width, taps)
    rows, row_weights = _taps(down - 0.5, height, taps)
    pixels = tf.reshape(image, (-1, image.shape[-1]))
    total = tf.zeros((1, 1, 1))
    for row, row_weight in zip(rows, row_weights, strict=True):
        line = tf.zeros((1, 1, 1))
        for column, weight in zip(columns, column_weights, strict=True):
            values = tf.gather(pixels, row * width + column)
            line += weight[..., None] * tf.cast(values, tf.float32)
        total += row_weight[..., None] * line
    # Fractions are cut off; sums of float32 may fall short of a whole number.
    moved = tf.cast(tf.clip_by_value(total + 1e-3, 0.0, 255.0), tf.uint8)
    outside = tf.constant(fill[: image.shape[-1]], tf.uint8)
    return tf.ensure_shape(tf.where(is_inside[..., None], moved, outside), image.shape)


def _taps(
    places: tf.Tensor, length: tf.Tensor, weigh: Any
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Neighbours of places on an axis, clipped to it, and their weights."""
    first = tf.floor(places)
    weights = weigh(tf.cast(places - first, tf.float32))
    start = tf.cast(first, tf.int32) - (len(weights) // 2 - 1)
    numbers = [tf.clip_by_value(start + i, 0, length - 1) for i in range(len(weights))]
    return numbers, weights


def _linear(t: tf.Tensor) -> list[tf.Tensor]:
    return [1.0 - t, t]


def _cubic(t: tf.Tensor) -> list[tf.Tensor]:
    """Keys' kernel with a = -1, which Pillow's transforms have."""
    return [
        t * (-1.0 + t * (2.0 - t)),
        1.0 + t * t * (t - 2.0),
        t * (1.0 + t * (1.0 - t)),
        t * t * (t - 1.0),
    ]


def rotation(degrees: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Make the map of `Image.rotate`: about the centre, against the clock.

    Args:
        degrees: angle, float64 scalar.
        image: (H, W, C) tensor; its size is what counts.

    Returns:
        (2, 3) float64 tensor for `transform`.
    """
    angle = -degrees * (math.pi / 180.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x = tf.cast(tf.shape(image)[1], tf.float64) / 2.0
    y = tf.cast(tf.shape(image)[0], tf.float64) / 2.0
    rows = [[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]]
    return tf.stack([tf.stack(row) for row in rows])


def box_mask(size: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """Tell which pixels lie in a box.

    Args:
        size: (2,) int32 tensor: height and width of the image.
        first: (2,) int32 tensor: y and x of the first pixel.
        last: (2,) int32 tensor: y and x behind the last pixel.

    Returns:
        (H, W, 1) bool tensor.
    """
    y, x = tf.range(size[0])[:, None, None], tf.range(size[1])[None, :, None]
    return (y >= first[0]) & (y < last[0]) & (x >= first[1]) & (x < last[1])
