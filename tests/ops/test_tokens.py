import numpy as np
import pytest
import tensorflow as tf

from kvision.ops import tokens as token_ops
from kvision.ops.gathering import gather_rows
from tests.ops.modes import assert_modes_agree

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("length", "share", "count"),
    [(196, 0.7, 137), (196, 0.7**2, 96), (196, 0.7**3, 67), (100, 0.7**2, 49)],
)
def test_shares_are_rounded_down(length: int, share: float, count: int) -> None:
    assert token_ops.share_of(length, share) == count


def test_scatter_is_the_inverse_of_gather() -> None:
    tokens, background = normal(2, 7, 3), normal(2, 7, 3)
    indices = np.stack([RNG.permutation(7)[:4] for _ in range(2)]).astype(np.int32)

    def there_and_back(tokens, indices, background):
        taken = gather_rows(tokens, indices)
        return taken, token_ops.scatter_tokens(taken, indices, background)

    taken, got = assert_modes_agree(there_and_back, tokens, indices, background)
    expected = background.copy()
    for sample, row in enumerate(indices):
        np.testing.assert_array_equal(taken[sample], tokens[sample][row])
        expected[sample][row] = tokens[sample][row]
    np.testing.assert_array_equal(got, expected)


def test_positions() -> None:
    got = token_ops.positions_of(np.int32([[2, 0], [3, 1]]), 4)
    np.testing.assert_array_equal(got, [[1, -1, 0, -1], [-1, 1, -1, 0]])


def test_cells_hold_four_neighbours() -> None:
    grid = normal(2, 4, 6, 3)
    cells = assert_modes_agree(token_ops.grid_to_cells, grid).reshape(2, 2, 3, 4, 3)
    for y in range(4):
        for x in range(6):
            place = 2 * (y % 2) + x % 2
            expected = grid[:, y, x]
            np.testing.assert_array_equal(cells[:, y // 2, x // 2, place], expected)
    back = token_ops.cells_to_grid(cells.reshape(2, 6, 12), 2, 3)
    np.testing.assert_array_equal(back, grid)


def test_hard_decisions_are_as_probable_as_they_say() -> None:
    logits = np.repeat(np.float32([-2, 0, 1]), 20000).reshape(3, -1)
    noise = RNG.uniform(size=logits.shape).astype(np.float32)
    drawn = np.asarray(token_ops.hard_decisions(logits, noise))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    # Three standard deviations of a mean of 20000.
    expected = 1 / (1 + np.exp([2, 0, -1]))
    np.testing.assert_allclose(drawn.mean(axis=1), expected, atol=0.011)


def test_hard_decisions_have_the_gradient_of_soft_ones() -> None:
    logits = tf.constant(normal(50))
    noise = RNG.uniform(0.01, 0.99, 50).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        drawn = token_ops.hard_decisions(logits, noise, temperature=0.5)
    soft = 1 / (1 + np.exp(-(logits + np.log(noise / (1 - noise))) / 0.5))
    np.testing.assert_allclose(
        tape.gradient(drawn, logits), soft * (1 - soft) / 0.5, rtol=1e-4, atol=1e-6
    )


def test_decisions_without_luck_at_the_ends_of_the_noise() -> None:
    drawn = token_ops.hard_decisions(np.float32([0, 0]), np.float32([0, 1]))
    np.testing.assert_array_equal(drawn, [0, 1])


def test_detail_by_hand() -> None:
    image = np.zeros((1, 8, 12, 2), np.float32)
    image[0, 1, 2, 0] = 4.0  # loses 3^2 + 3 * 1^2 in the cell (0, 0)
    image[0, :4, 8:, :] = 7.0  # flat inside its cell
    image[0, 4:, 4:8, 1] = np.tile([[1, -1], [-1, 1]], (2, 2))  # all of it is lost
    got = assert_modes_agree(
        lambda images: token_ops.detail_energy(images, (4, 4)), image
    )
    np.testing.assert_array_equal(got, [[[12, 0, 0], [0, 16, 0]]])


def test_detail_ends_where_the_image_does() -> None:
    flat = np.full((1, 7, 9, 3), 200.0, np.float32)
    got = assert_modes_agree(
        lambda images: token_ops.detail_energy(images, (4, 4)), flat
    )
    np.testing.assert_array_equal(got, np.zeros((1, 2, 3)))


def test_detail_against_a_slow_blur() -> None:
    images = RNG.integers(0, 256, (2, 12, 8, 3)).astype(np.float32)
    got = np.asarray(token_ops.detail_energy(images, (6, 4)))
    small = images.reshape(2, 6, 2, 4, 2, 3).mean(axis=(2, 4))
    blurred = small.repeat(2, axis=1).repeat(2, axis=2)
    lost = np.square(images - blurred).reshape(2, 2, 6, 2, 4, 3).sum(axis=(2, 4, 5))
    np.testing.assert_allclose(got, lost, rtol=1e-6)


def test_covered_cells_are_those_that_share_pixels() -> None:
    regions = np.float32(
        [
            [[4, 3, 8, 5], [0, 0, 0, 0]],  # columns 1, rows 0 and 1
            [[11.5, 0, 40, 0.5], [2, 9, 2, 12]],  # to the right edge; no width
            [[0, 0, 0, 0], [0, 0, 0, 0]],
        ]
    )
    got = assert_modes_agree(
        lambda regions: token_ops.covered_cells(regions, (3, 4), (4, 4)), regions
    )
    expected = np.zeros((3, 3, 4))
    expected[0, :2, 1] = 1
    expected[1, 0, 2:] = 1
    np.testing.assert_array_equal(got, expected)
