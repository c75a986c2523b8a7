"""Attention in steps against loops in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision.ops.attention import (
    attention_scores,
    kept_softmax,
    merge_heads,
    split_heads,
)
from tests.ops.modes import assert_modes_agree, to_numpy

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def scores_by_loop(
    queries: np.ndarray, keys: np.ndarray, bias: np.ndarray | float = 0.0
) -> np.ndarray:
    batch, heads, length, head_dim = queries.shape
    found = np.zeros((batch, heads, length, keys.shape[2]))
    bias = np.broadcast_to(bias, found.shape)
    for b, h, n in np.ndindex(batch, heads, length):
        logits = [key @ queries[b, h, n] / head_dim**0.5 for key in keys[b, h]]
        powers = np.exp(np.array(logits) + bias[b, h, n])
        found[b, h, n] = powers / powers.sum()
    return found


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_split_heads(parts: int, axis: int) -> None:
    packed = normal(2, 5, parts * 12)
    split = assert_modes_agree(lambda x: split_heads(x, 4, parts, axis), packed)
    assert len(split) == parts
    for part, head in np.ndindex(parts, 4):
        start = part * 12 + head * 3  # a part after the other, each head-major
        expected = packed[:, :, start : start + 3]
        np.testing.assert_array_equal(split[part].take(head, axis), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_merge_heads_undoes_split_heads(axis: int) -> None:
    tokens = normal(2, 5, 12)
    (heads,) = split_heads(tokens, 4, 1, axis)
    np.testing.assert_array_equal(to_numpy(merge_heads(heads, axis)), tokens)


@pytest.mark.parametrize("keys", [1, 4, 7])
def test_scores(keys: int) -> None:
    q, k = normal(2, 3, 5, 8), normal(2, 3, keys, 8)
    ours = assert_modes_agree(attention_scores, q, k)
    np.testing.assert_allclose(ours, scores_by_loop(q, k), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 5, 7), (1, 1, 1, 7)])
def test_bias(shape: tuple[int, ...]) -> None:
    q, k, bias = normal(2, 3, 5, 8), normal(2, 3, 7, 8), normal(*shape)
    ours = assert_modes_agree(attention_scores, q, k, bias)
    np.testing.assert_allclose(ours, scores_by_loop(q, k, bias), rtol=0, atol=1e-6)


def test_softmax_is_float32_in_half_precision() -> None:
    """In bfloat16 both logits would be 100."""
    zeros = keras.ops.zeros((1, 1, 2, 8), "bfloat16")
    scores = attention_scores(zeros, zeros, np.float32([[[[100.0, 100.2]]]]))
    assert scores.dtype == "bfloat16"
    ratio = to_numpy(keras.ops.cast(scores, "float32"))[0, 0, 0]
    assert ratio[1] / ratio[0] == pytest.approx(np.exp(0.2), rel=0.01)


def test_the_softmax_of_a_graph_is_float32_inside_too() -> None:
    """Gradients as well: what is common to all keys cancels, in bfloat16 not quite."""
    rng = np.random.default_rng(0)
    q, k = (tf.cast(rng.normal(size=(2, 3, 200, 8)), tf.bfloat16) for _ in range(2))
    up = tf.constant(3 + rng.normal(size=(2, 3, 200, 200)), tf.float32)

    def run(q: tf.Tensor, k: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch((q, k))
            scores = attention_scores(q, k)
            loss = tf.reduce_sum(tf.cast(scores, tf.float32) * up)
        return [scores, *tape.gradient(loss, (q, k))]

    wide = run(tf.cast(q, tf.float32), tf.cast(k, tf.float32))
    for found in (run(q, k), tf.function(run)(q, k)):
        for one, other in zip(found, wide, strict=True):
            assert one.dtype == tf.bfloat16
            error = tf.norm(tf.cast(one, tf.float32) - other) / tf.norm(other)
            assert error < 0.01


def test_large_logits_stay_finite() -> None:
    q, k = 1e3 * normal(1, 1, 3, 8), 1e3 * normal(1, 1, 4, 8)
    ours = assert_modes_agree(attention_scores, q, k)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours.sum(-1), 1, rtol=0, atol=1e-6)
    kept = to_numpy(attention_scores(q[:, :, :3], k[:, :, :3], keep=np.ones((1, 3))))
    assert np.isfinite(kept).all()


def test_kept_softmax_with_all_keys_is_the_softmax() -> None:
    q, k = normal(2, 3, 6, 8), normal(2, 3, 6, 8)
    ours = assert_modes_agree(
        lambda q, k, keep: attention_scores(q, k, keep=keep),
        q,
        k,
        np.ones((2, 6), np.float32),
    )
    np.testing.assert_allclose(ours, scores_by_loop(q, k), rtol=0, atol=3e-6)


def test_dropped_keys_are_seen_by_themselves_alone() -> None:
    # Of its own, whatever ran before: the last bound holds where no dropped key leads
    # by far.
    logits = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32)
    keep = np.float32([[1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 1, 1]])
    ours = assert_modes_agree(kept_softmax, logits, keep)
    for b, h, n in np.ndindex(2, 3, 6):
        seen = keep[b].copy()
        seen[n] = 1
        powers = np.exp(logits[b, h, n]) * seen
        expected = powers / powers.sum()
        np.testing.assert_allclose(ours[b, h, n], expected, rtol=0, atol=3e-6)
    others = ours * (1 - keep[:, None, None]) * (1 - np.eye(6))
    assert others.max() < 1e-6  # a share of epsilon


def test_partly_kept_keys_get_a_gradient() -> None:
    logits, keep = tf.constant(normal(1, 2, 4, 4)), tf.constant([[1.0, 0.5, 0.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(keep)
        scores = kept_softmax(logits, keep)
        total = tf.reduce_sum(scores * normal(1, 2, 4, 4))
    gradient = tape.gradient(total, keep).numpy()
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient) > 1e-4).all()
