"""Blocks: the arithmetic, and gradients of activations that were not kept."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision import layers

RNG = np.random.default_rng(0)
TOKENS = RNG.normal(size=(4, 9, 8)).astype(np.float32)


def block(recompute: bool = False, drop: float = 0.0) -> layers.TransformerBlock:
    keras.utils.set_random_seed(3)
    made = layers.TransformerBlock(
        layers.SelfAttention(2, attention_dropout=drop, dropout=drop),
        layers.MLP(12, dropout=drop),
        layer_scale=0.5,
        drop_path=drop,
        recompute=recompute,
    )
    made(TOKENS)
    return made


def test_equations() -> None:
    layer = block()
    first = layer.attention(layer.norm1(TOKENS))
    tokens = TOKENS + 0.5 * first
    second = layer.mlp(layer.norm2(tokens))
    np.testing.assert_allclose(layer(TOKENS), tokens + 0.5 * second, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_recomputation_changes_no_gradient(jit_compile: bool, drop: float) -> None:
    """The second pass draws what the first has drawn."""
    results = []
    for recompute in (False, True):
        layer = block(recompute, drop)

        @tf.function(jit_compile=jit_compile)
        def step(tokens: Any, layer: Any = layer) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(tokens)
                total = tf.reduce_sum(layer(tokens, training=True) ** 2)
            weights = [weight.value for weight in layer.trainable_variables]
            return total, tape.gradient(total, [tokens, *weights])

        # Twice: the seeds move on once a step, not twice.
        results.append([step(tf.constant(TOKENS)) for _ in range(2)])
    for (total, gradients), (total_2, gradients_2) in zip(*results, strict=True):
        np.testing.assert_allclose(total, total_2, rtol=1e-5)
        for one, other in zip(gradients, gradients_2, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_seeds_move_on() -> None:
    layer = block(recompute=True, drop=0.3)
    run = tf.function(lambda x: layer(x, training=True))
    assert np.abs(run(TOKENS) - run(TOKENS)).max() > 1e-3


def test_drop_path_keeps_the_expectation() -> None:
    drop = layers.DropPath(0.25, seed=0)
    ones = drop(np.ones((4000, 2, 2), np.float32), training=True).numpy()
    values = ones.reshape(4000, 4)
    assert (values == values[:, :1]).all()  # whole samples
    assert set(np.unique(values)) == {0.0, np.float32(1 / 0.75)}
    assert values.mean() == pytest.approx(1, abs=0.04)


def test_patch_dropout_keeps_the_prefix_and_the_order() -> None:
    drop = layers.PatchDropout(0.5, num_prefix_tokens=1, seed=0)
    tokens = np.tile(np.arange(9, dtype=np.float32)[None, :, None], (50, 1, 2))
    kept = drop(tokens, training=True).numpy()[..., 0]
    assert kept.shape == (50, 5)
    assert (kept[:, 0] == 0).all()
    assert (np.diff(kept, axis=1) > 0).all()
    assert len(np.unique(kept, axis=0)) > 20  # each sample its own
    np.testing.assert_array_equal(drop(tokens), tokens)
