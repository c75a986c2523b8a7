"""Balanced sampling from a seed."""

import numpy as np
import pytest

from kvision.ops.matching import IGNORED, NEGATIVE, POSITIVE
from kvision.ops.sampling import balanced_sample, random_keys
from tests.ops.modes import assert_modes_agree, to_numpy


def verdicts_of(positives: int, negatives: int, ignored: int) -> np.ndarray:
    parts = [POSITIVE] * positives + [NEGATIVE] * negatives + [IGNORED] * ignored
    return np.random.default_rng(0).permutation(np.array(parts, np.int32))[None]


@pytest.mark.parametrize(
    ("positives", "negatives", "expected_positives", "expected_used"),
    [
        (50, 100, 8, 32),  # enough of both: a quarter of 32 is positive
        (3, 100, 3, 32),  # few positives: negatives fill up
        (0, 100, 0, 32),
        (50, 10, 8, 18),  # few negatives: positives do not fill up
        (2, 3, 2, 5),
        (0, 0, 0, 0),
        (100, 0, 8, 8),
    ],
)
def test_counts(
    positives: int, negatives: int, expected_positives: int, expected_used: int
) -> None:
    verdicts = verdicts_of(positives, negatives, 40)
    keys = np.random.default_rng(1).random(verdicts.shape, np.float32)
    indices, is_positive, is_used = to_numpy(balanced_sample(verdicts, keys, 32, 0.25))
    assert indices.shape == is_positive.shape == is_used.shape == (1, 32)
    assert is_positive.sum() == expected_positives
    assert is_used.sum() == expected_used
    assert is_positive[0, :expected_positives].all()
    assert is_used[0, :expected_used].all()
    chosen = indices[is_used]
    assert len(set(chosen)) == len(chosen)
    expected = np.where(is_positive[is_used], POSITIVE, NEGATIVE)
    np.testing.assert_array_equal(verdicts[0, chosen], expected)


def test_largest_keys_win() -> None:
    verdicts = np.array([[1, 0, 1, 0, 1, 0, -1]], np.int32)
    keys = np.array([[0.1, 0.9, 0.5, 0.2, 0.4, 0.3, 1.0]], np.float32)
    indices, _, _ = to_numpy(balanced_sample(verdicts, keys, 4, 0.5))
    assert indices.tolist() == [[2, 4, 1, 5]]


def test_more_slots_than_candidates() -> None:
    verdicts = np.array([[1, 0, -1]], np.int32)
    keys = np.array([[0.3, 0.2, 0.1]], np.float32)
    indices, is_positive, is_used = to_numpy(balanced_sample(verdicts, keys, 16, 0.5))
    assert indices[0, :2].tolist() == [0, 1]
    assert is_positive.sum() == 1
    assert is_used.sum() == 2
    assert (indices < 3).all()


def test_images_of_a_batch_are_sampled_apart() -> None:
    verdicts = np.concatenate([verdicts_of(20, 60, 20), verdicts_of(2, 98, 0)])
    keys = to_numpy(random_keys((2, 100), np.int32(3)))
    together = to_numpy(balanced_sample(verdicts, keys, 16, 0.5))
    for i in range(2):
        row = slice(i, i + 1)
        alone = to_numpy(balanced_sample(verdicts[row], keys[row], 16, 0.5))
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_array_equal(a[row], b)


def test_every_mode_samples_the_same() -> None:
    verdicts = np.concatenate([verdicts_of(20, 60, 20), verdicts_of(2, 90, 8)])

    def run(verdicts: object, seed: object) -> tuple:
        return balanced_sample(verdicts, random_keys((2, 100), seed), 16, 0.25)

    assert_modes_agree(run, verdicts, np.int32(11))


def test_keys_are_uniform_and_depend_on_the_seed() -> None:
    first = to_numpy(random_keys((4, 5000), np.int32(1)))
    again = to_numpy(random_keys((4, 5000), np.int32(1)))
    other = to_numpy(random_keys((4, 5000), np.int32(2)))
    np.testing.assert_array_equal(first, again)
    assert first.min() >= 0
    assert first.max() < 1
    # 20 bins of 1000: five deviations of a binomial are 154
    counts = np.histogram(first, 20, (0, 1))[0]
    assert np.abs(counts - 1000).max() < 154
    # 20000 pairs: a correlation beyond 5 / sqrt(20000) is no accident
    for a, b in ((first, other), (first[:, 1:], first[:, :-1]), (first[0], first[1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / a.size**0.5


@pytest.mark.parametrize("seeds", [(0, 1), (1, -1), (2**31 - 1, -(2**31))])
def test_neighbouring_and_extreme_seeds_differ(seeds: tuple[int, int]) -> None:
    first, second = (to_numpy(random_keys((1, 1000), np.int32(s))) for s in seeds)
    assert (first == second).mean() < 0.01
    # not the same sequence, moved along
    shared = len(set(first.ravel()) & set(second.ravel()))
    assert shared < 20


def test_every_candidate_is_chosen_equally_often() -> None:
    verdicts = np.zeros((400, 20), np.int32)
    keys = to_numpy(random_keys((400, 20), np.int32(5)))
    indices, _, _ = to_numpy(balanced_sample(verdicts, keys, 5, 0.5))
    counts = np.bincount(indices.ravel(), minlength=20)
    assert np.abs(counts - 100).max() < 45  # five deviations of a binomial
