"""Resizing for classifiers equals Pillow's, in Python and in graphs."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kvision.data.images import load_image
from kvision.data.preparation import prepare_image
from kvision.ops.preparation import prepare_tensor

RANDOM = np.random.default_rng(0)
NOISE = [
    RANDOM.integers(0, 256, (*size, 3), np.uint8)
    for size in ((300, 200), (37, 61), (224, 224), (90, 400))
]
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


def by_pillow(image: np.ndarray, size: int, resize: str, interpolation: str) -> tuple:
    """torchvision's Resize and CenterCrop, and plain resizing, with Pillow's calls."""
    height, width = image.shape[:2]
    if resize == "stretch":
        new = (size, size)
    elif resize == "pad":
        scale = min(size / height, size / width)
        new = tuple(int(side * scale + 0.5) for side in (height, width))
    else:
        short = int(size / 0.875)
        long = int(short * max(height, width) / min(height, width))
        new = (short, long) if height <= width else (long, short)
    picture = Image.fromarray(image).resize(new[::-1], FILTERS[interpolation])
    resized = np.asarray(picture)
    if resize == "pad":
        rest = [(0, size - side) for side in new]
        return np.pad(resized, (*rest, (0, 0)))
    top, left = (round((side - size) / 2) for side in new)
    return resized[top : top + size, left : left + size]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_equals_pillow(resize: str, interpolation: str) -> None:
    for image in NOISE:
        rule = (resize, 0.875, interpolation)
        prepared = prepare_image(image, (64, 64), *rule).astype(int)
        if int(Image.__version__.split(".")[0]) >= 13:
            expected = by_pillow(image, 64, resize, interpolation)
            np.testing.assert_array_equal(prepared, expected)
        twin = prepare_tensor(tf.constant(image), (64, 64), *rule)
        assert np.abs(twin.numpy().astype(int) - prepared).max() <= 1


def test_photos(shared_data: Path) -> None:
    for path in sorted((shared_data / "coco_mini/val2017").glob("*.jpg"))[:4]:
        image = load_image(path)
        prepared = prepare_image(image, (224, 224)).astype(int)
        expected = by_pillow(image, 224, "crop", "bicubic").astype(int)
        # Old Pillows resample in another order where the height shrinks more.
        assert np.abs(prepared - expected).max() <= 1
        twin = prepare_tensor(tf.constant(image), (224, 224)).numpy().astype(int)
        assert np.abs(twin - prepared).max() <= 1


def test_grey_and_strips() -> None:
    grey = NOISE[0][..., :1]
    prepared = prepare_image(grey, (40, 24), "crop", 1.0)
    assert prepared.shape == (40, 24, 1)
    # A strip is not enlarged as a whole; its middle is the same.
    strip = RANDOM.integers(0, 256, (8, 4000, 3), np.uint8)
    middle = prepare_image(strip[:, 1950:2050], (16, 16), "crop", 1.0).astype(int)
    assert np.abs(prepare_image(strip, (16, 16), "crop", 1.0) - middle).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (0, 4)}, "image_size must be"),
        ({"resize": "fit"}, 'resize must be "crop", "stretch" or "pad"'),
        ({"crop_fraction": 1.5}, "crop_fraction must be above 0 and at most 1"),
        ({"interpolation": "area"}, "interpolation must be"),
        ({"image": NOISE[0].astype(float)}, "must be a .* uint8 array"),
    ],
)
def test_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_image(**{"image": NOISE[0], "image_size": (8, 8), **arguments})
