"""Every op gives Pillow's pixels: exactly, but for one grey level of moved images."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from kvision.data import pixel_ops

RANDOM = np.random.default_rng(0)
IMAGES = [
    RANDOM.integers(0, 256, (33, 47, 3), np.uint8),
    RANDOM.integers(60, 130, (40, 21, 3), np.uint8),
    np.full((9, 12, 3), 77, np.uint8),
]
FILL = (124, 116, 104)
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


def double(value: float) -> tf.Tensor:
    return tf.constant(value, tf.float64)


def compare(op: Callable, peer: Callable, tolerance: int = 0) -> None:
    for image in IMAGES:
        result = op(tf.constant(image)).numpy().astype(int)
        expected = np.asarray(peer(Image.fromarray(image))).astype(int)
        assert np.abs(result - expected).max() <= tolerance


def test_tables() -> None:
    compare(pixel_ops.auto_contrast, ImageOps.autocontrast)
    compare(pixel_ops.equalize, ImageOps.equalize)
    compare(pixel_ops.invert, ImageOps.invert)
    for bits in (1, 4, 8):
        compare(
            lambda x, b=bits: pixel_ops.posterize(x, tf.constant(b)),
            lambda i, b=bits: ImageOps.posterize(i, b),
        )
    for threshold in (0, 100, 256):
        compare(
            lambda x, t=threshold: pixel_ops.solarize(x, t),
            lambda i, t=threshold: ImageOps.solarize(i, t),
        )


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_enhancement(name: str) -> None:
    for factor in (0.1, 0.53, 1.0, 1.37, 1.9):
        compare(
            lambda x, f=factor: getattr(pixel_ops, name)(x, double(f)),
            lambda i, f=factor: getattr(ImageEnhance, name.title())(i).enhance(f),
        )


def test_grey() -> None:
    for image in IMAGES:
        expected = np.asarray(Image.fromarray(image).convert("L"))
        result = pixel_ops.grey(tf.constant(image))[..., 0]
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("radius", [0.1, 0.3, 1.0, 1.5, 2.0])
def test_blur(radius: float) -> None:
    compare(
        lambda x: pixel_ops.gaussian_blur(x, double(radius)),
        lambda i: i.filter(ImageFilter.GaussianBlur(radius)),
    )


@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
def test_moves(name: str) -> None:
    for degrees in (-27.0, 3.3):
        compare(
            lambda x, d=degrees: pixel_ops.transform(
                x, pixel_ops.rotation(double(d), x), name, FILL
            ),
            lambda i, d=degrees: i.rotate(d, FILTERS[name], fillcolor=FILL),
            tolerance=1,
        )
    for rows in ((1, 0.27, 0, 0, 1, 0), (1, 0, 0, -0.2, 1, 0), (1, 0, 7.7, 0, 1, -4.3)):
        matrix = np.reshape(rows, (2, 3)).astype(float)
        compare(
            lambda x, m=matrix: pixel_ops.transform(x, tf.constant(m), name, FILL),
            lambda i, r=rows: i.transform(
                i.size, Image.Transform.AFFINE, r, FILTERS[name], fillcolor=FILL
            ),
            tolerance=1,
        )


def test_solarize_add_by_hand() -> None:
    image = tf.constant([[[0, 100, 127], [128, 200, 255]]], tf.uint8)
    added = pixel_ops.solarize_add(image, tf.constant(110))
    np.testing.assert_array_equal(added, [[[110, 210, 237], [128, 200, 255]]])
