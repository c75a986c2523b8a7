"""Anchors: sizes, order and steps."""

import numpy as np
import pytest

from kvision.ops.anchors import base_anchors, level_anchors


def test_base_anchors_by_hand() -> None:
    """Wide, square, tall; 32 / sqrt(2) = 22.6 and 45.3, halves rounded to even."""
    expected = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    np.testing.assert_array_equal(base_anchors([32], [0.5, 1, 2]), expected)


def test_unrounded_anchors_have_their_area_and_ratio() -> None:
    anchors = base_anchors([10, 30], [0.25, 1, 4], rounded=False)
    widths, heights = (anchors[:, 2:] - anchors[:, :2]).T
    np.testing.assert_allclose(widths * heights, [100, 900] * 3, rtol=1e-5)
    np.testing.assert_allclose(heights / widths, [0.25] * 2 + [1] * 2 + [4] * 2, 1e-5)
    np.testing.assert_allclose(anchors[:, :2], -anchors[:, 2:])


# A 2 x 3 grid over 16 x 24 pixels: steps of 8, one square anchor of 4 px a cell.
def test_grid_by_hand() -> None:
    anchors = level_anchors((2, 3), (16, 24), [4], [1.0])
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    expected = [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8]]
    np.testing.assert_array_equal(centres, expected)
    np.testing.assert_array_equal(anchors[4], [6, 6, 10, 10])


def test_anchors_of_a_cell_lie_together() -> None:
    anchors = level_anchors((3, 4), (24, 32), [8, 16], [0.5, 2.0])
    assert anchors.shape == (3 * 4 * 4, 4)
    cell = base_anchors([8, 16], [0.5, 2.0])
    np.testing.assert_array_equal(anchors[:4], cell)
    np.testing.assert_array_equal(anchors[4:8], np.add(cell, [8, 0, 8, 0]))
    np.testing.assert_array_equal(anchors[16:20], np.add(cell, [0, 8, 0, 8]))


@pytest.mark.parametrize(("size", "step"), [(800, 61), (832, 64), (801, 61)])
def test_step_is_rounded_down(size: int, step: int) -> None:
    """13 cells over 800 px are 61 px apart, as in torchvision, not 64."""
    anchors = level_anchors((13, 1), (size, 64), [512], [1.0])
    assert anchors[1, 1] - anchors[0, 1] == step


def test_step_that_is_given() -> None:
    anchors = level_anchors((13, 5), (800, 300), [512], [1.0], stride=64)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_array_equal(centres[[1, 5, -1]], [[64, 0], [0, 64], [256, 768]])


def test_step_is_at_least_one_pixel() -> None:
    anchors = level_anchors((4, 4), (2, 2), [4], [1.0])
    assert len(np.unique(anchors, axis=0)) == 16
