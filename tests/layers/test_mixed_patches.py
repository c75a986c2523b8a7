"""Patches of two sizes: who is chosen, where they stand, and back again."""

import numpy as np
import pytest

from kvision import layers

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def test_detail_finds_the_pattern() -> None:
    images = np.full((1, 16, 24, 3), 90, np.uint8)
    images[0, 8:16, 16:24] = 255 * (np.indices((8, 8)).sum(axis=0) % 2)[..., None]
    scores = np.asarray(layers.DetailScores((8, 8))(images))
    assert scores.argmax() == 5
    assert np.count_nonzero(scores) == 1


def test_regions_come_first_and_detail_orders_them() -> None:
    scores = np.float32([[[1, 0, 9], [3, 8, 2]]])
    regions = np.float32([[[0, 0, 16, 8], [0, 0, 0, 0]]])  # cells 0 and 1
    got = np.asarray(layers.RegionScores((8, 8))(scores, regions))
    order = np.argsort(-got.reshape(-1), kind="stable")
    np.testing.assert_array_equal(order, [0, 1, 2, 4, 3, 5])


def test_regions_on_a_blank_image_are_exactly_what_is_fine() -> None:
    blank = np.zeros((1, 4, 6), np.float32)
    regions = np.float32([[[9, 9, 24, 15], [0, 0, 0, 0]]])
    scores = layers.RegionScores((8, 8))(blank, regions)
    covered = {7, 8}  # row 1, columns 1 and 2
    coarse, fine = normal(1, 4, 6, 2), normal(1, 8, 12, 2)
    _, cells = layers.MixedPatches(2)(coarse, fine, scores)
    assert set(np.asarray(cells)[0, :2]) == covered


def test_codes_of_a_cell_are_the_mean_of_its_four() -> None:
    layer = layers.MultiScalePositionEmbedding()
    zeros = np.zeros((1, 2, 3, 4), np.float32), np.zeros((1, 4, 6, 4), np.float32)
    coarse, fine = (np.asarray(grid) for grid in layer(*zeros))
    table, scales = layer.table.numpy(), layer.scales.numpy()
    np.testing.assert_allclose(fine[0], table + scales[1], atol=1e-7)
    for y in range(2):
        for x in range(3):
            four = table[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(4, 4)
            np.testing.assert_allclose(
                coarse[0, y, x], four.mean(axis=0) + scales[0], atol=1e-7
            )


def test_patches_outside_the_image_are_zeros_with_a_code() -> None:
    layer = layers.MultiScalePositionEmbedding()
    _, fine = layer(normal(1, 2, 3, 4), normal(1, 3, 5, 4))
    expected = layer.table.numpy() + layer.scales.numpy()[1]
    np.testing.assert_allclose(fine[0, 3], expected[3], atol=1e-7)
    np.testing.assert_allclose(fine[0, :, 5], expected[:, 5], atol=1e-7)


def test_tokens_one_by_one() -> None:
    coarse, fine, scores = normal(2, 2, 3, 4), normal(2, 4, 6, 4), normal(2, 2, 3)
    tokens, cells = layers.MixedPatches(2)(coarse, fine, scores)
    assert tokens.shape == (2, 6 + 3 * 2, 4)
    for sample in range(2):
        order = sorted(range(6), key=lambda i: -scores[sample].reshape(-1)[i])
        np.testing.assert_array_equal(cells[sample], order)
        expected = [
            fine[sample, 2 * (cell // 3) + dy, 2 * (cell % 3) + dx]
            for cell in order[:2]
            for dy in (0, 1)
            for dx in (0, 1)
        ]
        expected += [coarse[sample, cell // 3, cell % 3] for cell in order[2:]]
        np.testing.assert_array_equal(tokens[sample], expected)


@pytest.mark.parametrize("fine_cells", [0, 1, 0.5, 6, 1.0])
def test_map_back_puts_every_token_in_its_place(fine_cells: int | float) -> None:
    """Each token holds where it is: the coarse ones that of their first corner."""
    where = np.stack(np.indices((4, 6)), -1)[None].astype(np.float32)
    coarse = where[:, ::2, ::2]
    scores = normal(1, 2, 3)
    tokens, cells = layers.MixedPatches(fine_cells)(coarse, where, scores)
    prefixed = np.concatenate([np.full((1, 2, 2), -9.0), tokens], axis=1)
    grid = layers.MixedTokensToGrid(2)(prefixed.astype(np.float32), cells, coarse)
    count = round(fine_cells * 6) if isinstance(fine_cells, float) else fine_cells
    expected = where.copy()
    for cell in np.asarray(cells)[0, count:]:
        y, x = 2 * (cell // 3), 2 * (cell % 3)
        expected[0, y : y + 2, x : x + 2] = where[0, y, x]
    np.testing.assert_array_equal(grid, expected)


@pytest.mark.parametrize("fine_cells", [-1, 1.5])
def test_budget_out_of_range(fine_cells: int | float) -> None:
    with pytest.raises(ValueError, match=f"fine_cells must be.*{fine_cells}"):
        layers.MixedPatches(fine_cells)


def test_budget_of_more_cells_than_there_are() -> None:
    with pytest.raises(ValueError, match="at most 6, the cells of a grid of 2 x 3"):
        layers.MixedPatches(7)(normal(1, 2, 3, 4), normal(1, 4, 6, 4), normal(1, 2, 3))


def test_odd_patches_have_no_half() -> None:
    with pytest.raises(ValueError, match=r"both even.*Received: \(8, 7\)"):
        layers.DetailScores((8, 7))
