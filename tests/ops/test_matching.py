"""Matching of candidates to objects."""

import numpy as np
import pytest

from kvision.ops import boxes as box_ops
from kvision.ops.matching import IGNORED, NEGATIVE, POSITIVE, match
from tests.ops.modes import assert_modes_agree, to_numpy
from tests.parity import numpy_reference as reference


def run(iou: list, is_object: list | None = None, low: bool = True) -> tuple:
    table = np.array(iou, np.float32)[None]
    mask = np.ones(table.shape[:2], bool) if is_object is None else [is_object]
    indices, verdicts = match(table, np.array(mask), 0.7, 0.3, low)
    return to_numpy(indices)[0].tolist(), to_numpy(verdicts)[0].tolist()


def test_thresholds_are_inclusive_above_and_exclusive_below() -> None:
    indices, verdicts = run([[0.7, 0.69, 0.3, 0.29, 0.9]], low=False)
    assert indices == [0] * 5
    assert verdicts == [POSITIVE, IGNORED, IGNORED, NEGATIVE, POSITIVE]


def test_best_candidate_of_an_object_is_positive_however_low() -> None:
    assert run([[0.1, 0.2, 0.05]])[1] == [NEGATIVE, POSITIVE, NEGATIVE]


def test_ties_are_all_positive() -> None:
    assert run([[0.2, 0.2, 0.1]])[1] == [POSITIVE, POSITIVE, NEGATIVE]


def test_low_quality_match_keeps_its_own_best_object() -> None:
    """Candidate 0 is the best one of object 1, but overlaps object 0 more."""
    indices, verdicts = run([[0.5, 0.8], [0.4, 0.1]])
    assert indices == [0, 0]
    assert verdicts == [POSITIVE, POSITIVE]


def test_object_without_overlap_claims_nothing() -> None:
    """Unlike torchvision, where every candidate ties at 0 and becomes positive."""
    assert run([[0.0, 0.0, 0.0]])[1] == [NEGATIVE] * 3


def test_padding_is_no_object() -> None:
    indices, verdicts = run([[0.1, 0.2], [0.9, 0.9]], [True, False], low=False)
    assert indices == [0, 0]
    assert verdicts == [NEGATIVE, NEGATIVE]


@pytest.mark.parametrize("low", [True, False])
def test_no_objects_make_everything_negative(low: bool) -> None:
    verdicts = run([[0.9, 0.4, 0.0], [0.5, 0.5, 0.5]], [False, False], low)[1]
    assert verdicts == [NEGATIVE] * 3


@pytest.mark.parametrize("low", [True, False])
def test_equals_the_slow_reference_in_every_mode(low: bool) -> None:
    rng = np.random.default_rng(0)
    objects = np.array([[10, 10, 42, 42], [30, 5, 50, 60], [0, 0, 8, 8]], np.float32)
    origin = rng.integers(0, 12, (80, 2)) * 4.0
    side = rng.choice([8.0, 16.0, 32.0], (80, 2))
    candidates = np.concatenate([origin, origin + side], 1).astype("f4")
    padded = np.concatenate([objects, np.zeros((2, 4), "f4")])[None]

    def run_all(padded: object, candidates: object) -> tuple:
        iou = box_ops.iou(padded, candidates)
        return match(iou, np.array([[True] * 3 + [False] * 2]), 0.5, 0.3, low)

    indices, verdicts = assert_modes_agree(run_all, padded, candidates)
    expected = reference.match(objects, candidates, 0.5, 0.3, low)
    assert len({verdict for _, verdict in expected}) == 3
    np.testing.assert_array_equal(verdicts[0], [verdict for _, verdict in expected])
    overlaps = reference.iou_matrix(objects, candidates).max(0) > 0
    chosen = np.array([index for index, _ in expected])
    np.testing.assert_array_equal(indices[0][overlaps], chosen[overlaps])
