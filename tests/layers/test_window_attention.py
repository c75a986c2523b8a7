"""Attention in windows against a loop over the cells of a grid."""

from typing import Any

import keras
import numpy as np
import pytest

from kvision.layers import SelfAttention, TransformerBlock, WindowAttention
from kvision.layers.mlp import MLP
from tests.ops.modes import to_numpy

RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def built(grid: np.ndarray, **arguments: Any) -> WindowAttention:
    layer = WindowAttention(**arguments)
    layer.build(grid.shape)
    for weight in layer.weights:
        weight.assign(0.3 * normal(*weight.shape))
    return layer


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def attended(
    image: np.ndarray, layer: WindowAttention, y: int, x: int
) -> tuple[np.ndarray, np.ndarray]:
    """One cell of one image: its output, and (H, s, s) scores over its window."""
    side, heads = layer.window_size, layer.num_heads
    kernel, bias = (to_numpy(w).astype(np.float64) for w in layer.qkv.weights)
    packed = image @ kernel + bias
    queries, keys, values = np.split(packed, 3, axis=-1)
    head_dim = queries.shape[-1] // heads
    scores = np.zeros((heads, side, side))
    mixed = []
    top, left = y // side * side, x // side * side
    bottom, right = min(top + side, len(image)), min(left + side, image.shape[1])
    for head in range(heads):
        part = slice(head * head_dim, (head + 1) * head_dim)
        query = queries[y, x, part]
        window = keys[top:bottom, left:right, part] @ query / np.sqrt(head_dim)
        found = softmax(window)
        scores[head, : bottom - top, : right - left] = found
        cells = values[top:bottom, left:right, part]
        mixed.append(np.tensordot(found, cells, 2))
    kernel, bias = (to_numpy(w).astype(np.float64) for w in layer.projection.weights)
    return np.concatenate(mixed) @ kernel + bias, scores


# Windows fit; they fit along no axis, one, the other; a grid smaller than a window.
@pytest.mark.parametrize("size", [(6, 9), (7, 8), (6, 8), (8, 6), (2, 4), (1, 1)])
def test_equals_a_loop_over_cells(size: tuple[int, int]) -> None:
    grid = normal(2, *size, 8)
    layer = built(grid, num_heads=2, window_size=3)
    outputs, scores = to_numpy(layer(grid, return_attention_scores=True))
    assert scores.shape == (2, 2, size[0] * size[1], 9)
    np.testing.assert_allclose(scores.sum(-1), 1, rtol=0, atol=1e-6)
    for index in np.ndindex(2, *size):
        image, y, x = index
        expected, window = attended(grid[image], layer, y, x)
        np.testing.assert_allclose(outputs[index], expected, rtol=0, atol=1e-5)
        ours = scores[image, :, y * size[1] + x]
        np.testing.assert_allclose(ours, window.reshape(2, 9), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(to_numpy(layer(grid)), outputs)


def test_one_window_over_all_is_self_attention() -> None:
    grid = normal(2, 4, 5, 8)
    layer = built(grid, num_heads=4, window_size=5)
    whole = SelfAttention(4)
    whole.build((2, 20, 8))
    whole.set_weights(layer.get_weights())
    expected = to_numpy(whole(grid.reshape(2, 20, 8))).reshape(grid.shape)
    np.testing.assert_allclose(to_numpy(layer(grid)), expected, rtol=0, atol=1e-6)


def test_nothing_leaves_a_window() -> None:
    """A cell that changes moves the outputs of its window and no others."""
    grid = normal(1, 7, 7, 8)
    layer = built(grid, num_heads=2, window_size=3)
    changed = grid.copy()
    changed[0, 4, 6] += 1
    moved = np.abs(to_numpy(layer(changed)) - to_numpy(layer(grid))).max(-1)[0] > 1e-6
    expected = np.zeros((7, 7), bool)
    expected[3:6, 6] = True
    np.testing.assert_array_equal(moved, expected)


def test_scores_only_when_asked_and_symbolically_too() -> None:
    grid = keras.Input((7, 8, 8))
    layer = WindowAttention(2, 3)
    assert layer(grid).shape == (None, 7, 8, 8)
    outputs, scores = layer(grid, return_attention_scores=True)
    assert (outputs.shape, scores.shape) == ((None, 7, 8, 8), (None, 2, 56, 9))


def test_training_drops_scores_and_outputs() -> None:
    grid = np.ones((1, 6, 6, 8), np.float32)
    layer = built(grid, num_heads=2, window_size=3, dropout=0.5)
    assert (to_numpy(layer(grid, training=True)) == 0).mean() == pytest.approx(0.5, 0.3)
    layer = built(grid, num_heads=2, window_size=3, attention_dropout=0.5)
    assert np.ptp(to_numpy(layer(grid, training=True))[0, ..., 0]) > 1e-3
    assert np.ptp(to_numpy(layer(grid, training=False))[0, ..., 0]) < 1e-5


def test_in_a_block() -> None:
    block = TransformerBlock(WindowAttention(2, 3), MLP(16), name="block")
    grid = normal(2, 7, 8, 8)
    assert block(grid).shape == grid.shape
    copy = TransformerBlock.from_config(block.get_config())
    assert isinstance(copy.attention, WindowAttention)
    assert copy.attention.window_size == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 2, "window_size": 0}, "window_size must be 1 or more"),
        ({"num_heads": 3}, "num_heads must divide the width of the grid, 8"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowAttention(**arguments)(normal(1, 4, 4, 8))
