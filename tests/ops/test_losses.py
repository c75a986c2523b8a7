"""Losses of single elements."""

import math

import numpy as np
import pytest
import tensorflow as tf

from kvision.ops import losses
from tests.ops.modes import assert_modes_agree, to_numpy


def test_sigmoid_cross_entropy_by_hand() -> None:
    logits = np.array([0, 0, math.log(3), math.log(3)], np.float32)  # p = 1/2, 3/4
    targets = np.array([0, 1, 1, 0], np.float32)
    expected = [math.log(2), math.log(2), -math.log(0.75), math.log(4)]
    values = to_numpy(losses.sigmoid_cross_entropy(logits, targets))
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_sigmoid_cross_entropy_of_large_logits() -> None:
    """exp(200) overflows; the loss is the logit itself, or 0."""
    logits = np.array([200, 200, -200, -200], np.float32)
    targets = np.array([0, 1, 1, 0], np.float32)
    values = to_numpy(losses.sigmoid_cross_entropy(logits, targets))
    np.testing.assert_allclose(values, [200, 0, 200, 0], atol=1e-6)


def test_softmax_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[1, 2, 5], [1, 1, 1]], np.float32))
    values = to_numpy(losses.softmax_cross_entropy(logits, np.array([1, 0], np.int32)))
    np.testing.assert_allclose(values, [-math.log(2 / 8), math.log(3)], rtol=1e-6)


def test_untrained_softmax_loss_is_the_log_of_the_number_of_classes() -> None:
    values = losses.softmax_cross_entropy(np.zeros((4, 81), "f4"), np.arange(4))
    np.testing.assert_allclose(to_numpy(values), math.log(81), rtol=1e-6)


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (1.0, [0, 0.125, 0.5, 1.5]),
        (0.5, [0, 0.25, 0.75, 1.75]),
        (0.0, [0, 0.5, 1, 2]),
    ],
)
def test_smooth_l1_by_hand(beta: float, expected: list[float]) -> None:
    for sign in (1, -1):
        errors = sign * np.array([0, 0.5, 1, 2], np.float32)
        values = to_numpy(losses.smooth_l1(errors + 7, np.full(4, 7, "f4"), beta))
        np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_smooth_l1_has_no_kink_at_beta() -> None:
    x = tf.Variable([1 / 9 - 1e-4, 1 / 9 + 1e-4])
    with tf.GradientTape() as tape:
        loss = losses.smooth_l1(x, tf.zeros(2), 1 / 9)
    np.testing.assert_allclose(to_numpy(tape.gradient(loss, x)), 1, atol=2e-3)
    np.testing.assert_allclose(np.diff(to_numpy(loss)), 2e-4, rtol=0.01)


#   0   2   4   6        a = (0, 0, 4, 4), b = (2, 2, 6, 6): shared 4, union 28,
# 0 aaaaaaaaa            the box around both 36
# 2 aaaa####bbbb         c = (4, 0, 6, 2) beside a: shared 0, union 20, around 24
# 4     bbbbbbbb         d = (1, 1, 1, 3) is empty and in a
def test_giou_by_hand() -> None:
    boxes = np.array([[0, 0, 4, 4]] * 4 + [[1, 1, 1, 1]], np.float32)
    targets = np.array(
        [[0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 6, 2], [1, 1, 1, 3], [1, 1, 1, 1]], "f4"
    )
    expected = [0, 1 - 4 / 28 + 8 / 36, 1 + 4 / 24, 1, 1]
    np.testing.assert_allclose(to_numpy(losses.giou(boxes, targets)), expected, 1e-6)
    np.testing.assert_allclose(to_numpy(losses.giou(targets, boxes)), expected, 1e-6)


def test_giou_draws_boxes_apart_together() -> None:
    box = tf.Variable([[0.0, 0.0, 4.0, 4.0]])
    with tf.GradientTape() as tape:
        loss = losses.giou(box, tf.constant([[20.0, 0.0, 24.0, 4.0]]))
    x1, y1, x2, y2 = to_numpy(tape.gradient(loss, box))[0]
    assert x2 < 0, "the near side moves towards the target"
    assert np.isfinite([x1, y1, y2]).all()


def test_weighted_mean() -> None:
    values = np.array([1, 2, 3, 1e6], np.float32)
    weights = np.array([1, 1, 2, 0], np.float32)
    assert float(losses.weighted_mean(values, weights)) == pytest.approx(9 / 4)
    assert float(losses.weighted_mean(values, weights * 0)) == 0


def test_every_mode_computes_the_same() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 5, (2, 50)).astype("f4")
    targets = rng.random(50, np.float32)
    labels = rng.integers(0, 10, 5).astype("i4")

    def run(x: tf.Tensor, y: tf.Tensor) -> tuple:
        return (
            losses.sigmoid_cross_entropy(x, targets),
            losses.smooth_l1(x, y, 1 / 9),
            losses.softmax_cross_entropy(tf.reshape(x, (5, 10)), labels),
            losses.weighted_mean(x, targets),
            losses.giou(tf.reshape(x[:40], (10, 4)), tf.reshape(y[:40], (10, 4))),
        )

    assert_modes_agree(run, x, y)
