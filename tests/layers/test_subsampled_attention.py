"""Attention over a summary against a loop over the squares it is made of."""

from typing import Any

import keras
import numpy as np
import pytest

from kvision.layers import SubsampledAttention
from tests.ops.modes import to_numpy

RNG = np.random.default_rng(2)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def built(grid: np.ndarray, **arguments: Any) -> SubsampledAttention:
    layer = SubsampledAttention(**arguments)
    layer.build(grid.shape)
    for weight in layer.weights:
        weight.assign(0.3 * normal(*weight.shape))
    return layer


def weights(layer: keras.layers.Layer) -> list[np.ndarray]:
    return [to_numpy(weight).astype(np.float64) for weight in layer.weights]


def summary(image: np.ndarray, layer: SubsampledAttention) -> np.ndarray:
    """(M, D): convolution with stride and normalisation, a square at a time."""
    side = layer.reduction
    if side == 1:
        return image.reshape(-1, image.shape[-1])
    kernel, bias, gamma, beta = weights(layer.reduce)
    cells = []
    for y in range(0, image.shape[0], side):
        for x in range(0, image.shape[1], side):
            square = image[y : y + side, x : x + side]  # what is beyond the edge is 0
            height, width, _ = square.shape
            cell = np.tensordot(square, kernel[:height, :width], 3) + bias
            cell = (cell - cell.mean()) / np.sqrt(cell.var() + layer.epsilon)
            cells.append(cell * gamma + beta)
    return np.stack(cells)


@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 4), (6, 7), (3, 1)])
def test_equals_a_loop(size: tuple[int, int], reduction: int) -> None:
    grid = normal(2, *size, 8)
    layer = built(grid, num_heads=2, reduction=reduction)
    outputs, scores = to_numpy(layer(grid, return_attention_scores=True))
    (q, q_bias), (kv, kv_bias), (out, out_bias) = (
        weights(part) for part in (layer.query, layer.key_value, layer.projection)
    )
    for image in range(2):
        keys, values = np.split(summary(grid[image], layer) @ kv + kv_bias, 2, axis=-1)
        queries = grid[image].reshape(-1, 8) @ q + q_bias
        mixed = []
        for head, part in enumerate((slice(0, 4), slice(4, 8))):
            powers = np.exp(queries[:, part] @ keys[:, part].T / 2)  # sqrt(4)
            found = powers / powers.sum(-1, keepdims=True)
            np.testing.assert_allclose(scores[image, head], found, rtol=0, atol=1e-5)
            mixed.append(found @ values[:, part])
        expected = np.concatenate(mixed, -1) @ out + out_bias
        ours = outputs[image].reshape(-1, 8)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(to_numpy(layer(grid)), outputs)


def test_scores_only_when_asked_and_symbolically_too() -> None:
    grid = keras.Input((7, 8, 8))
    layer = SubsampledAttention(2, 3)
    assert layer(grid).shape == (None, 7, 8, 8)
    outputs, scores = layer(grid, return_attention_scores=True)
    assert (outputs.shape, scores.shape) == ((None, 7, 8, 8), (None, 2, 56, 9))


def test_training_drops_scores_and_outputs() -> None:
    grid = normal(1, 6, 6, 8)
    layer = built(grid, num_heads=2, dropout=0.5)
    assert (to_numpy(layer(grid, training=True)) == 0).mean() == pytest.approx(0.5, 0.3)
    layer = built(grid, num_heads=2, attention_dropout=0.5)
    trained, inferred = (to_numpy(layer(grid, training=t)) for t in (True, False))
    assert np.abs(trained - inferred).max() > 1e-2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 2, "reduction": 0}, "reduction must be 1 or more"),
        ({"num_heads": 3}, "num_heads must divide the width of the grid, 8"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SubsampledAttention(**arguments)(normal(1, 4, 4, 8))
