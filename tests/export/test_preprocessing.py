"""Decoding and resizing in a graph against those of `kvision.data`."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kvision.data.images import load_image, resize_image, resized_size
from kvision.export.preprocessing import decode, fit

SIZES = [(64, 96), (40, 96), (200, 120), (31, 17), (1, 300), (301, 1), (65, 97)]


@pytest.mark.parametrize("resize", ["pad", "stretch"])
@pytest.mark.parametrize("size", SIZES)
def test_fit_is_the_rule_of_the_data_package(size: tuple, resize: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels, scales = tf.function(lambda image: fit(image, (64, 96), resize))(image)
    np.testing.assert_array_equal(pixels, resize_image(image, (64, 96), resize))
    height, width = resized_size(*size, (64, 96), resize)
    np.testing.assert_allclose(scales, [height / size[0], width / size[1]], rtol=1e-6)


def as_file(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def files() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    rgb = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    return {
        "jpeg": as_file(rgb, "JPEG"),
        "rotated": as_file(rgb, "JPEG", exif=rotated),
        "png": as_file(rgb, "PNG"),
        "grey": as_file(rgb.convert("L"), "PNG"),
        "grey jpeg": as_file(rgb.convert("L"), "JPEG"),
        "palette": as_file(rgb.convert("P"), "PNG"),
        "alpha": as_file(
            Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)), "PNG"
        ),
        "16 bits": as_file(
            Image.fromarray(rng.integers(0, 65536, (20, 30), dtype=np.uint16)), "PNG"
        ),
        "bmp": as_file(rgb, "BMP"),
    }


@pytest.mark.parametrize("kind", files())
def test_decode_equals_the_data_package(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(files()[kind])
    decoded = tf.function(decode)(tf.constant(files()[kind]))
    np.testing.assert_array_equal(decoded, load_image(path))
    assert decoded.shape == ((30, 20, 3) if kind == "rotated" else (20, 30, 3))


def test_grey_models_get_one_channel() -> None:
    assert decode(tf.constant(files()["jpeg"]), 1).shape == (20, 30, 1)
