"""Windows of a grid against slices."""

import numpy as np
import pytest

from kvision.ops.windows import bands, merge_windows, partition_windows
from tests.ops.modes import assert_modes_agree


@pytest.mark.parametrize("sides", [(2, 3), (4, 2), (1, 1), (8, 6)])
def test_windows_are_slices(sides: tuple[int, int]) -> None:
    grid = np.random.default_rng(0).normal(size=(2, 8, 6, 5)).astype(np.float32)
    height, width = sides
    expected = [
        image[y : y + height, x : x + width].reshape(-1, 5)
        for image in grid
        for y in range(0, 8, height)
        for x in range(0, 6, width)
    ]
    windows = assert_modes_agree(lambda g: partition_windows(g, sides), grid)
    np.testing.assert_array_equal(windows, np.stack(expected))
    merged = assert_modes_agree(lambda w: merge_windows(w, sides, (8, 6)), windows)
    np.testing.assert_array_equal(merged, grid)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(14, [(0, 14)]), (16, [(0, 14), (14, 16)]), (5, [(0, 5)]), (7, [(0, 7)])],
)
def test_bands(length: int, expected: list[tuple[int, int]]) -> None:
    assert bands(length, 7) == [slice(*band) for band in expected]
