"""MixUp and CutMix by hand, and the distributions of what they draw."""

import numpy as np
import pytest
import tensorflow as tf

from kvision.data.mixing import CutMix, MixUp, MixUpOrCutMix, cut_box, soft_labels

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (4, 20, 30, 3), np.uint8)
LABELS = soft_labels(tf.constant([0, 1, 2, 3]), 4)


def seed(number: int) -> tf.Tensor:
    return tf.constant([number, 7])


def test_soft_labels_by_hand() -> None:
    rows = soft_labels(tf.constant([1, 0]), 4, 0.1)
    expected = [[0.025, 0.925, 0.025, 0.025], [0.925, 0.025, 0.025, 0.025]]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


def test_mixup_by_hand() -> None:
    images, labels = MixUp()(IMAGES, LABELS, seed(1))
    part = float(labels[0, 0])
    assert 0.0 < part < 1.0
    expected = part * IMAGES + (1.0 - part) * IMAGES[::-1].astype(np.float32)
    np.testing.assert_allclose(images, expected, atol=1e-3)
    np.testing.assert_allclose(labels[0], [part, 0, 0, 1 - part], atol=1e-6)
    np.testing.assert_allclose(labels[1], [0, part, 1 - part, 0], atol=1e-6)


def test_cutmix_labels_count_pixels() -> None:
    """The labels are the parts of the area, also where the edge cuts the box."""
    apply = tf.function(CutMix())
    for number in range(30):
        images, labels = apply(
            tf.constant(IMAGES), LABELS, tf.constant([number, 0], tf.int32)
        )
        other = (images.numpy() == IMAGES[::-1]).all(-1)
        own = (images.numpy() == IMAGES).all(-1)
        assert (other | own).all()
        part = own[0].mean()
        np.testing.assert_allclose(labels[0], [part, 0, 0, 1 - part], atol=0.01)


def test_cut_box_by_hand() -> None:
    """Half of the sides where a quarter goes; cut off at the edges."""
    size = tf.constant([20, 30])
    for number in range(50):
        first, last = cut_box(size, tf.constant(0.75, tf.float64), seed(number))
        sides = (last - first).numpy()
        assert (sides <= (10, 15)).all()
        for axis, full in enumerate((10, 15)):
            at_edge = first[axis] == 0 or last[axis] == size[axis]
            assert sides[axis] == full or at_edge


def test_lambda_is_of_beta() -> None:
    """Mean 1/2, variance 1 / (4 (2 alpha + 1))."""
    mix = tf.function(lambda s: MixUp(0.8)(IMAGES[:, :1, :1], LABELS, s)[1][0, 0])
    parts = np.array([mix(tf.constant([i, 3])) for i in range(600)])
    assert abs(parts.mean() - 0.5) < 0.04
    assert abs(parts.var() - 1 / (4 * 2.6)) < 0.015


def test_probabilities() -> None:
    images, labels = MixUp(probability=0.0)(IMAGES, LABELS, seed(0))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    both = tf.function(MixUpOrCutMix(switch_probability=0.3))
    count = 0
    for number in range(150):
        images, _ = both(tf.constant(IMAGES[:, :4, :4]), LABELS, seed(number))
        values = images.numpy()
        count += bool((values == np.round(values)).all())
    assert 0.18 < count / 150 < 0.42


@pytest.mark.parametrize("mix", [MixUp, CutMix])
def test_arguments(mix: type) -> None:
    with pytest.raises(ValueError, match="alpha must be above 0"):
        mix(alpha=0.0)
    with pytest.raises(ValueError, match="probability must lie between 0 and 1"):
        mix(probability=2.0)
