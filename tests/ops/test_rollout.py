"""Attention rollout against numbers by hand, and against loops over paths."""

import itertools

import numpy as np
import pytest
from keras import ops

from kvision.ops.rollout import attention_rollout, fuse_heads, scores_with_residual


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype("float32")


def random_scores(rng, heads, tokens, batch=2):
    return softmax(3 * rng.normal(size=(batch, heads, tokens, tokens)))


def test_three_tokens_by_hand():
    # Two blocks of one head. With half of the identity they become
    #   [3/4 1/4  0 ]       [1/2  0  1/2]
    #   [ 0   1   0 ]  and  [1/4 3/4  0 ]
    #   [1/4 1/4 1/2]       [ 0   0   1 ]
    first = np.array([[0.5, 0.5, 0], [0, 1, 0], [0.5, 0.5, 0]], "float32")
    second = np.array([[0, 0, 1], [0.5, 0.5, 0], [0, 0, 1]], "float32")
    rolled = attention_rollout([first[None, None], second[None, None]])
    # Row 0: half of (3/4, 1/4, 0) and half of (1/4, 1/4, 1/2); and so on.
    expected = [[0.5, 0.25, 0.25], [0.1875, 0.8125, 0], [0.25, 0.25, 0.5]]
    np.testing.assert_allclose(rolled[0], expected, atol=1e-7)


def slow_rollout(blocks, fuse, residual, ratio):
    """Sum over every path of tokens through the blocks, one image."""
    factors = []
    for scores in blocks:
        heads, tokens, _ = scores.shape
        factor = np.zeros((tokens, tokens))
        for i in range(tokens):
            row = [fuse([scores[h, i, j] for h in range(heads)]) for j in range(tokens)]
            for j in sorted(range(tokens), key=lambda k: row[k])[: int(tokens * ratio)]:
                row[j] = 0.0
            for j in range(tokens):
                factor[i, j] = residual * (i == j) + (1 - residual) * row[j] / sum(row)
        factors.append(factor)
    tokens = len(factors[0])
    result = np.zeros((tokens, tokens))
    for path in itertools.product(range(tokens), repeat=len(factors) + 1):
        share = 1.0
        for factor, after, before in zip(factors, path[1:], path, strict=False):
            share *= factor[after, before]
        result[path[-1], path[0]] += share
    return result


@pytest.mark.parametrize(
    ("fusion", "residual", "ratio"),
    [("mean", 0.5, 0.0), ("max", 0.25, 0.0), ("min", 0.5, 0.5), ("mean", 0.0, 0.8)],
)
def test_equals_the_sum_over_paths(fusion, residual, ratio):
    rng = np.random.default_rng(0)
    blocks = [random_scores(rng, 3, 5) for _ in range(4)]
    rolled = ops.convert_to_numpy(
        attention_rollout(
            iter(blocks), fusion=fusion, residual=residual, discard_ratio=ratio
        )
    )
    fuse = {"mean": np.mean, "max": max, "min": min}[fusion]
    for image in range(2):
        expected = slow_rollout([b[image] for b in blocks], fuse, residual, ratio)
        np.testing.assert_allclose(rolled[image], expected, atol=1e-6)
    np.testing.assert_allclose(rolled.sum(-1), 1, atol=1e-6)


def test_rows_are_normalised_one_by_one():
    """Known bug elsewhere: one sum for the whole matrix."""
    fused = ops.convert_to_numpy(
        fuse_heads(random_scores(np.random.default_rng(1), 2, 7), "max")
    )
    np.testing.assert_allclose(fused.sum(-1), 1, atol=1e-6)
    unlike = random_scores(np.random.default_rng(1), 2, 7).max(1)
    assert np.ptp(unlike.sum(-1)) > 0.1


def test_pruned_tokens_equal_gathering_them_with_a_matrix():
    rng = np.random.default_rng(2)
    before = [random_scores(rng, 2, 6) for _ in range(2)]
    between = [random_scores(rng, 2, 4)]
    after = [random_scores(rng, 2, 3) for _ in range(2)]
    kept = {2: np.array([[0, 5, 2, 3], [0, 1, 4, 2]]), 3: np.array([[0, 2, 1]] * 2)}
    rolled = ops.convert_to_numpy(
        attention_rollout(before + between + after, kept=kept)
    )
    assert rolled.shape == (2, 3, 6)
    np.testing.assert_allclose(rolled.sum(-1), 1, atol=1e-6)
    for image in range(2):
        expected = np.eye(6)
        for number, scores in enumerate(before + between + after):
            if number in kept:
                expected = np.eye(len(expected))[kept[number][image]] @ expected
            mean = scores[image].mean(0)
            expected = 0.5 * (np.eye(len(mean)) + mean) @ expected
        np.testing.assert_allclose(rolled[image], expected, atol=1e-6)


def test_a_row_without_attention_leaves_the_identity():
    one = np.eye(3)[[1, 2, 0]]
    other = np.eye(3)[[2, 0, 1]]
    fused = fuse_heads(np.stack([one, other])[None], "min")
    np.testing.assert_array_equal(fused, np.zeros((1, 3, 3)))
    np.testing.assert_array_equal(scores_with_residual(fused), np.eye(3)[None])


def test_equal_numbers_are_not_discarded():
    even = np.full((1, 2, 4, 4), 0.25, "float32")
    np.testing.assert_allclose(fuse_heads(even, "mean", 0.75), even[:, 0])


def test_half_precision_still_sums_to_one():
    scores = ops.cast(random_scores(np.random.default_rng(3), 2, 50), "bfloat16")
    rolled = attention_rollout([scores, scores])
    assert ops.dtype(rolled) == "float32"
    np.testing.assert_allclose(ops.sum(rolled, -1), 1, atol=1e-6)


def test_what_does_not_fit_is_refused():
    scores = random_scores(np.random.default_rng(4), 2, 4)
    with pytest.raises(ValueError, match="mean, max, min"):
        fuse_heads(scores, "median")
    with pytest.raises(ValueError, match="discard_ratio"):
        fuse_heads(scores, "mean", 1.0)
    with pytest.raises(ValueError, match="residual"):
        attention_rollout([scores], residual=1.0)
    with pytest.raises(ValueError, match="at least one block"):
        attention_rollout([])
    with pytest.raises(ValueError, match="attends to 3 tokens but 4"):
        attention_rollout([scores, scores[:, :, :3, :3]])
