"""The rule of classifiers three times: Pillow, a graph, NumPy on a device."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvision_edge
from kvision.data.preparation import prepare_image
from kvision.export.preprocessing import decode, grey
from kvision.ops.preparation import prepare_tensor
from kvision.predict.sources import with_channels

SIZES = [(24, 40), (40, 56), (200, 120), (31, 17), (1, 90), (90, 1), (25, 41), (480, 9)]


def photo(size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """Noise, black and white: what overshoots most."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
    noise[rng.random(size) < 0.3] = 0
    noise[rng.random(size) < 0.3] = 255
    return noise


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_three_ways_are_one(resize: str, interpolation: str) -> None:
    rule = ((24, 40), resize, 0.875, interpolation)
    graph = tf.function(
        lambda image: prepare_tensor(image, *rule),
        input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)],
    )
    for size in SIZES:
        image = photo(size)
        expected = prepare_image(image, *rule).astype(int)
        alone = kvision_edge.prepare(image, *rule)
        assert (alone.shape, alone.dtype) == ((24, 40, 3), np.uint8)
        np.testing.assert_array_equal(alone, expected)
        difference = np.abs(graph(image).numpy() - expected)
        assert difference.max() <= 1, size
        # Between few whole numbers many sums end in exactly one half.
        assert (difference > 0).mean() < 0.1, size


@pytest.mark.parametrize("fraction", [1.0, 0.9, 0.5])
def test_share_that_is_kept(fraction: float) -> None:
    image = photo((100, 150), 1)
    rule = ((32, 32), "crop", fraction, "bicubic")
    expected = prepare_image(image, *rule).astype(int)
    np.testing.assert_array_equal(kvision_edge.prepare(image, *rule), expected)
    found = prepare_tensor(tf.constant(image), *rule).numpy()
    assert np.abs(found - expected).max() <= 1


def test_photo_of_the_right_size_stays_as_it_is() -> None:
    image = photo((24, 40))
    for rule in (("stretch", 1.0, "bicubic"), ("crop", 1.0, "bilinear")):
        for way in (prepare_tensor, kvision_edge.prepare):
            np.testing.assert_array_equal(way(image, (24, 40), *rule), image)


def test_a_strip_does_not_fill_the_memory() -> None:
    # Enlarged as a whole it would have 224 x 2,240,000 pixels.
    strip = np.zeros((2, 20_000, 3), np.uint8)
    strip[:, 9_000:11_000] = 200
    for way in (kvision_edge.prepare, prepare_image):
        found = np.asarray(way(strip, (224, 224), "crop", 1.0, "bicubic"))
        np.testing.assert_array_equal(found, np.full((224, 224, 3), 200))


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_grey_models_weigh_colours_as_classify_does(kind: str) -> None:
    file = io.BytesIO()
    smooth = photo((6, 8)).repeat(8, 0).repeat(8, 1)
    Image.fromarray(smooth).save(file, "PNG" if kind == "png" else "JPEG")
    with Image.open(file) as image:
        expected = with_channels(np.asarray(image), 1).astype(int)
    found = grey(decode(tf.constant(file.getvalue()))).numpy()
    assert np.abs(found - expected).max() <= 1
    alone = kvision_edge._grey(smooth)
    np.testing.assert_array_equal(alone, with_channels(smooth, 1))
