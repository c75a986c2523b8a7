"""Codes of positions against formulas written out."""

import math

import numpy as np
import pytest

from kvision.ops.positions import relative_positions, sincos_1d, sincos_2d


@pytest.mark.parametrize("temperature", [10000.0, 100.0])
def test_sincos_1d(temperature: float) -> None:
    codes = sincos_1d(50, 12, temperature)
    assert codes.dtype == np.float32
    for position in range(50):
        for i in range(6):
            angle = position / temperature ** (2 * i / 12)
            assert codes[position, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert codes[position, 2 * i + 1] == pytest.approx(
                math.cos(angle), abs=1e-6
            )
    np.testing.assert_array_equal(codes[0], [0, 1] * 6)  # the class token's place


@pytest.mark.parametrize(("height", "width"), [(3, 3), (2, 5), (6, 1)])
def test_sincos_2d_is_that_of_big_vision(height: int, width: int) -> None:
    """models/vit.py: omega = 1 / T^(arange(d / 4) / (d / 4 - 1)), x before y."""
    dim, temperature = 16, 10000.0
    codes = sincos_2d(height, width, dim, temperature)
    assert codes.shape == (height * width, dim)
    for y in range(height):
        for x in range(width):
            expected = []
            for wave, place in (
                (math.sin, x),
                (math.cos, x),
                (math.sin, y),
                (math.cos, y),
            ):
                for k in range(dim // 4):
                    omega = 1 / temperature ** (k / (dim // 4 - 1))
                    expected.append(wave(place * omega))
            np.testing.assert_allclose(codes[y * width + x], expected, atol=1e-6)


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize(("height", "width"), [(3, 3), (2, 4), (1, 5)])
def test_relative_positions(height: int, width: int, prefix: int) -> None:
    numbers = relative_positions(height, width, prefix)
    cells = height * width
    assert numbers.shape == (prefix + cells, prefix + cells)
    count = (2 * height - 1) * (2 * width - 1)
    number_of: dict[tuple[int, int], int] = {}
    for query in range(cells):
        for key in range(cells):
            dy = query // width - key // width
            dx = query % width - key % width
            number = int(numbers[prefix + query, prefix + key])
            # One number for each offset, in the order of a (2h - 1, 2w - 1) table,
            # which is what resampling the table relies on.
            assert number == (dy + height - 1) * (2 * width - 1) + dx + width - 1
            assert number_of.setdefault((dy, dx), number) == number
    assert sorted(number_of.values()) == list(range(count))
    assert (numbers[:prefix, prefix:] == count).all()
    assert (numbers[prefix:, :prefix] == count + 1).all()
    assert (numbers[:prefix, :prefix] == count + 2).all()


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="embed_dim must be even"):
        sincos_1d(4, 7)
    with pytest.raises(ValueError, match="multiple of 4, 8 or more"):
        sincos_2d(2, 2, 10)
