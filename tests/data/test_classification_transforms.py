"""Crops, erasing and colours: what they draw, and that they stay within bounds."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFilter, ImageOps

from kvision.data.classification_transforms import (
    ColorJitter,
    RandomErasing,
    RandomPaddedCrop,
    RandomResizedCrop,
    ThreeAugment,
    named_transforms,
)
from kvision.data.rand_augment import RAND_AUGMENT_OPS, RandAugment

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (32, 40, 3), np.uint8)


def run(transform: object, number: int) -> np.ndarray:
    return graph_of(transform)(tf.constant([number, 0])).numpy()


@functools.cache
def graph_of(transform: object) -> object:
    sample = {"images": tf.constant(IMAGE), "labels": tf.constant(1)}
    return tf.function(lambda seed: transform(sample, seed)["images"])


def test_windows_are_those_of_torchvision() -> None:
    """Area and ratio are uniform in their ranges, the ratio in its logarithm."""
    crop = RandomResizedCrop((0.2, 0.5))
    size = tf.constant([300, 400])
    window = tf.function(lambda s: crop.window(size, s))
    drawn = np.array([window(tf.constant([i, 1])) for i in range(400)])
    top, left, height, width = drawn.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 300).all()
    assert (left + width <= 400).all()
    part = height * width / 120000
    assert part.min() > 0.19
    assert part.max() < 0.51
    assert abs(part.mean() - 0.35) < 0.02
    assert abs(np.log(width / height).mean()) < 0.04
    room = (left / np.maximum(400 - width, 1)).mean()
    assert abs(room - 0.5) < 0.06


def test_impossible_windows_take_the_middle() -> None:
    crop = RandomResizedCrop((0.9, 1.0))
    window = crop.window(tf.constant([10, 100]), tf.constant([0, 0]))
    np.testing.assert_array_equal(window, [0, 43, 10, 13])
    window = crop.window(tf.constant([100, 10]), tf.constant([0, 0]))
    np.testing.assert_array_equal(window, [43, 0, 13, 10])


def test_padded_crop_shifts() -> None:
    shifted = run(RandomPaddedCrop(4), 3)
    padded = np.pad(IMAGE, ((4, 4), (4, 4), (0, 0)), "reflect")
    found = [
        (y, x)
        for y in range(9)
        for x in range(9)
        if np.array_equal(padded[y : y + 32, x : x + 40], shifted)
    ]
    assert len(found) == 1


def test_erasing() -> None:
    erase = RandomErasing(0.5, mode="const")
    parts = []
    for number in range(100):
        changed = (run(erase, number) != IMAGE).any(-1)
        if changed.any():
            rows, columns = (
                np.flatnonzero(changed.any(1)),
                np.flatnonzero(changed.any(0)),
            )
            box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box.mean() > 0.99  # a rectangle, but for pixels of that colour
            parts.append(box.size / changed.size)
    assert 0.35 < len(parts) / 100 < 0.65
    assert min(parts) > 0.01
    assert max(parts) < 0.36
    noise = run(RandomErasing(1.0, area=(0.3, 1 / 3)), 1)[(run(erase, 1) >= 0).all(-1)]
    assert noise.std() > 40


def test_three_augment() -> None:
    grey = np.repeat(np.asarray(Image.fromarray(IMAGE).convert("L"))[..., None], 3, -1)
    solarized = np.asarray(ImageOps.solarize(Image.fromarray(IMAGE)))
    counts = [0, 0, 0]
    for number in range(30):
        image = run(ThreeAugment((1.5, 1.5)), number)
        blurred = Image.fromarray(IMAGE).filter(ImageFilter.GaussianBlur(1.5))
        peers = (grey, solarized, np.asarray(blurred))
        counts[[np.array_equal(image, peer) for peer in peers].index(True)] += 1
    assert min(counts) > 3


def test_color_jitter_of_grey_scale() -> None:
    """Brightness alone multiplies: all factors lie in the range."""
    jitter = ColorJitter(0.4, 0.0, 0.0)
    for number in range(10):
        image = run(jitter, number)
        bright = IMAGE > 100
        factors = image[bright & (image < 255)] / IMAGE[bright & (image < 255)]
        assert factors.min() > 0.58
        assert factors.max() < 1.42
    np.testing.assert_array_equal(run(ColorJitter(0.0, 0.0, 0.0), 0), IMAGE)
    assert run(ColorJitter(0.3, 0.3, 0.3, 0.1), 5).shape == IMAGE.shape


def test_rand_augment() -> None:
    """Half of the ops act; the same seed gives the same image; all 15 exist."""
    assert len(RAND_AUGMENT_OPS) == 15
    augment = tf.function(
        lambda s: RandAugment(num_ops=1)({"images": tf.constant(IMAGE)}, s)["images"]
    )
    images = [augment(tf.constant([i, 0])).numpy() for i in range(80)]
    unchanged = np.mean([np.array_equal(image, IMAGE) for image in images])
    assert 0.35 < unchanged < 0.7
    np.testing.assert_array_equal(images[3], augment(tf.constant([3, 0])))
    level = tf.constant(0.9, tf.float64)
    sign = tf.constant(1.0, tf.float64)
    results = {
        name: RandAugment().apply(name, tf.constant(IMAGE), level, sign).numpy()
        for name in RAND_AUGMENT_OPS
    }
    peer = ImageOps.posterize(Image.fromarray(IMAGE), 1)  # 4 - int(0.9 * 4)
    np.testing.assert_array_equal(results["posterize"], np.asarray(peer))
    peer = ImageOps.solarize(Image.fromarray(IMAGE), 26)  # 256 - int(0.9 * 256)
    np.testing.assert_array_equal(results["solarize"], np.asarray(peer))
    peer = Image.fromarray(IMAGE).rotate(
        27.0, Image.Resampling.BICUBIC, fillcolor=(124, 116, 104)
    )
    assert np.abs(results["rotate"] - np.asarray(peer).astype(int)).max() <= 1


def test_named_sets() -> None:
    assert named_transforms(False) == []
    assert named_transforms(True) == named_transforms("light")
    assert [type(one).__name__ for one in named_transforms("deit")] == [
        "RandomResizedCrop",
        "HorizontalFlip",
        "RandAugment",
        "RandomErasing",
        "MixUpOrCutMix",
    ]
    assert len(named_transforms("three")) == 5
    with pytest.raises(ValueError, match=r"one of .'deit', 'light', 'three'"):
        named_transforms("strong")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop((0.5, 0.2)), "scale must be"),
        (lambda: ThreeAugment((0.1, 3.0)), "blur must be"),
        (lambda: RandomErasing(mode="rand"), "mode must be"),  # type: ignore
        (lambda: RandAugment(magnitude=11), "magnitude must lie between 0 and 10"),
        (lambda: RandAugment(num_ops=0), "num_ops must be at least 1"),
        (lambda: ColorJitter(-0.1), "Changes must be at least 0"),
    ],
)
def test_arguments(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
