"""Pruning against slow implementations in NumPy."""

from math import erf

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision import layers

RNG = np.random.default_rng(0)
B, N, D = 3, 10, 8


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def reference_scores(layer, patches: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Log-probabilities (B, N, 2) of keep and drop, as vit.md 4.9 says, in float64."""
    gamma, beta = (w.numpy() for w in layer.norm.weights)
    denses = [layer.dense, layer.out_dense1, layer.out_dense2, layer.out_dense3]
    (w0, b0), *rest = [[w.numpy() for w in dense.weights] for dense in denses]
    out = np.zeros((*patches.shape[:2], 2))
    for sample in range(len(patches)):
        x = patches[sample].astype(np.float64)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = gelu((x * gamma + beta) @ w0 + b0)
        there = [x[i, D // 2 :] for i in range(len(x)) if keep[sample, i]]
        for i in range(len(x)):
            y = np.concatenate([x[i, : D // 2], np.mean(there, axis=0)])
            for number, (w, b) in enumerate(rest):
                y = y @ w + b
                y = gelu(y) if number < 2 else y
            out[sample, i] = y - np.log(np.exp(y).sum())
    return out


def scorer(num_prefix_tokens: int = 1) -> layers.TokenScorer:
    layer = layers.TokenScorer(num_prefix_tokens)
    layer.build((None, num_prefix_tokens + N, D))
    for weight in layer.weights:
        weight.assign(0.5 * normal(*weight.shape) + (weight.shape == (D,)))
    return layer


@pytest.mark.parametrize("training", [True, False])
def test_scorer(training: bool) -> None:
    layer, tokens = scorer(2), normal(B, 2 + N, D)
    keep = (RNG.uniform(size=(B, 2 + N)) < 0.6).astype(np.float32)
    keep[:, 2] = 1
    logits = layer(tokens, keep=keep, training=training)
    # In inference the tokens that are gone are not among those given.
    counted = keep[:, 2:] if training else np.ones((B, N))
    expected = reference_scores(layer, tokens[:, 2:], counted)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(
        tf.math.log_sigmoid(logits), expected[..., 0], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        tf.math.log_sigmoid(-logits), expected[..., 1], rtol=1e-5, atol=1e-5
    )


def test_scorer_of_an_image_without_patches_is_finite() -> None:
    logits = scorer()(normal(B, 1 + N, D), keep=np.zeros((B, 1 + N)), training=True)
    assert np.isfinite(logits).all()


def test_scorer_needs_a_width_it_can_halve() -> None:
    with pytest.raises(ValueError, match=r"multiple of 4\. Received: 6"):
        layers.TokenScorer()(normal(1, 5, 6))


def test_inference_gathers_the_best() -> None:
    tokens, logits = normal(B, 2 + 7, D), normal(B, 7)
    before = np.stack([RNG.permutation(N)[:7] for _ in range(B)]).astype(np.int32)
    layer = layers.TokenPruning(0.45, num_prefix_tokens=2)  # 4 of 10, not of 7
    ones = np.ones((B, 9), np.float32)
    got, keep, kept = layer(tokens, logits, normal(B, 2, 5, 1), ones, before)
    assert got.shape == (B, 2 + 4, D)
    np.testing.assert_array_equal(keep, np.ones((B, 6)))
    for sample in range(B):
        best = sorted(range(7), key=lambda i: -logits[sample, i])[:4]
        np.testing.assert_array_equal(kept[sample], before[sample][best])
        expected = [*tokens[sample, :2], *(tokens[sample, 2 + i] for i in best)]
        np.testing.assert_array_equal(got[sample], expected)
    assert not layer.losses


def test_equals_go_in_their_order() -> None:
    _, _, kept = layers.TokenPruning(0.5)(
        normal(1, 5, D), np.zeros((1, 4), np.float32), normal(1, 2, 2, 1)
    )
    np.testing.assert_array_equal(kept, [[0, 1]])


def test_training_masks() -> None:
    tokens, logits = normal(B, 1 + N, D), 3 * normal(B, N)
    logits[0] = 30
    before = np.ones((B, 1 + N), np.float32)
    before[:, 3] = 0
    layer = layers.TokenPruning(0.7, loss_weight=1.5)
    got, keep, kept = layer(tokens, logits, normal(B, 2, 5, 1), before, training=True)
    np.testing.assert_array_equal(got, tokens)
    np.testing.assert_array_equal(kept, np.tile(np.arange(N), (B, 1)))
    keep = np.asarray(keep)
    assert set(np.unique(keep)) == {0.0, 1.0}
    assert (keep[:, 0] == 1).all()  # the class token
    np.testing.assert_array_equal(keep[0], before[0])
    assert (keep[:, 3] == 0).all()  # gone is gone
    expected = 1.5 * np.mean((keep[:, 1:].mean(axis=1) - 0.7) ** 2)
    np.testing.assert_allclose(layer.losses, [expected], rtol=1e-6)


def test_training_draws_anew() -> None:
    layer, grid = layers.TokenPruning(0.5, seed=1), normal(1, 20, 20, 1)
    tokens, logits = normal(1, 401, 4), np.zeros((1, 400), np.float32)
    first, second = (
        np.asarray(layer(tokens, logits, grid, training=True)[1]) for _ in range(2)
    )
    assert (first != second).any()
    assert 0.4 < first[0, 1:].mean() < 0.6


def test_block_in_training_sees_kept_tokens_and_itself() -> None:
    """The policy softmax, one query after the other."""
    attention, mlp = layers.SelfAttention(2), layers.MLP(12)
    block = layers.PrunedTransformerBlock(attention, mlp)
    tokens = normal(B, N, D)
    keep = (RNG.uniform(size=(B, N)) < 0.5).astype(np.float32)
    got = block(tokens, keep=keep, training=True)
    normed = np.asarray(block.norm1(tokens))
    q, k, v = np.split(np.asarray(attention.qkv(normed), np.float64), 3, axis=-1)
    mixed = np.zeros((B, N, D))
    for sample in range(B):
        for head in (slice(0, 4), slice(4, 8)):
            for i in range(N):
                logits = k[sample, :, head] @ q[sample, i, head] / 2
                seen = keep[sample].copy()
                seen[i] = 1
                power = np.exp(logits - logits.max()) * seen
                share = (power + 1e-6 / N) / (power.sum() + 1e-6)
                mixed[sample, i, head] = share @ v[sample, :, head]
    expected = tokens + attention.projection(mixed.astype(np.float32))
    expected = expected + mlp(block.norm2(expected))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_block_in_inference_is_a_plain_one() -> None:
    block = layers.PrunedTransformerBlock(layers.SelfAttention(2), layers.MLP(12))
    plain = layers.TransformerBlock(block.attention, block.mlp)
    tokens = normal(B, N, D)
    plain(tokens)
    np.testing.assert_array_equal(
        block(tokens, keep=np.zeros((B, N), np.float32)), plain(tokens)
    )


def test_grid_of_kept_tokens() -> None:
    tokens, background = normal(B, 1 + 4, D), normal(B, 2, 5, D)
    kept = np.stack([RNG.permutation(N)[:4] for _ in range(B)]).astype(np.int32)
    got = layers.KeptTokensToGrid(1)(tokens, kept, background)
    expected = background.copy()
    for sample in range(B):
        for token, cell in zip(tokens[sample, 1:], kept[sample], strict=True):
            expected[sample, cell // 5, cell % 5] = token
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("ratio", [0.0, 1.1])
def test_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"keep_ratio must be in \(0, 1\].*{ratio}"):
        layers.TokenPruning(ratio)


def test_two_samples_of_keras_seed_repeat() -> None:
    def drawn() -> np.ndarray:
        keras.utils.set_random_seed(7)
        layer = layers.TokenPruning(0.5)
        rng = np.random.default_rng(3)
        tokens = rng.normal(size=(1, 17, 4)).astype(np.float32)
        logits = np.zeros((1, 16), np.float32)
        return np.asarray(
            layer(tokens, logits, np.zeros((1, 4, 4, 1)), training=True)[1]
        )

    np.testing.assert_array_equal(drawn(), drawn())
