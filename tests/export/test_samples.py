"""Images to compare on and to calibrate with, from whatever holds images."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kvision.data import shapes
from kvision.data.images import resize_image
from kvision.export.samples import (
    calibration_images,
    comparison_images,
    fitted,
    generated_images,
)

MODEL = SimpleNamespace(image_size=(64, 96), num_channels=3, resize="pad")
ARRAY = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)

SOURCES: dict[str, Callable[[], Any]] = {
    "array": lambda: ARRAY,
    "tensor": lambda: tf.constant(ARRAY),
    "floats": lambda: ARRAY + np.float32(0.3),
    "list": lambda: list(ARRAY),
    "generator": lambda: (image for image in ARRAY),
    "batches": lambda: [ARRAY[:2], ARRAY[2:]],
    "batches with targets": lambda: [(ARRAY[:3], {"a": 1}), (ARRAY[3:], {})],
    "data set": lambda: tf.data.Dataset.from_tensor_slices(ARRAY).batch(2),
    "data set with targets": lambda: tf.data.Dataset.from_tensor_slices(
        (ARRAY, {"a": range(5)})
    ).batch(2),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_sources(kind: str) -> None:
    found = comparison_images(MODEL, SOURCES[kind]())
    assert [image.dtype for image in found] == [np.uint8] * 5
    np.testing.assert_array_equal(np.stack(found), ARRAY)
    assert len(comparison_images(MODEL, SOURCES[kind](), num_images=3)) == 3


def test_files_of_different_sizes(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    photos = [ARRAY[0], ARRAY[1, :7]]
    for path, photo in zip(paths, photos, strict=True):
        Image.fromarray(photo).save(path)
    for found in (
        comparison_images(MODEL, [str(paths[0]), paths[1]]),
        comparison_images(MODEL, [photos[0], photos[1]]),
    ):
        for image, photo in zip(found, photos, strict=True):
            np.testing.assert_array_equal(image, photo)
    pixels = fitted(MODEL, photos)
    assert pixels.shape == (2, 64, 96, 3)
    for image, photo in zip(pixels, photos, strict=True):
        np.testing.assert_array_equal(image, resize_image(photo, (64, 96)))


def test_data_sets_of_the_package_calibrate() -> None:
    data = shapes(num_images=6, image_size=(64, 96), batch_size=4)
    found = calibration_images(MODEL, data, num_images=5)
    assert (found.shape, found.dtype) == ((5, 64, 96, 3), np.uint8)
    expected = np.concatenate([images for images, _ in data])[:5]
    np.testing.assert_array_equal(found, np.rint(expected).astype(np.uint8))


def test_at_most_a_hundred_calibrate() -> None:
    endless = tf.data.Dataset.from_tensor_slices(ARRAY).batch(2).repeat()
    assert len(calibration_images(MODEL, endless)) == 100


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_generated_pictures(channels: int) -> None:
    model = SimpleNamespace(image_size=(64, 96), num_channels=channels)
    found, again = generated_images(model), comparison_images(model, None)
    assert len(found) == 8
    assert found[0].shape == (64, 96, channels)
    assert len({image.shape for image in found}) == 8
    for image, same in zip(found, again, strict=True):
        np.testing.assert_array_equal(image, same)
        assert image.dtype == np.uint8
        assert image.std() > 15


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "images= holds no image"),
        (ARRAY[..., :1], r"Expected images \(H, W, 3\).* shape \(5, 20, 30, 1\)"),
        (ARRAY[0, :, :, 0], r"shape \(20, 30\)"),
        ([ARRAY[0], 5], "Received: int"),
        (tf.data.Dataset.from_tensor_slices(ARRAY), r"batches .* shape \(20, 30, 3\)"),
    ],
    ids=["empty", "grey", "matrix", "number", "unbatched"],
)
def test_what_holds_no_images(images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        comparison_images(MODEL, images)
