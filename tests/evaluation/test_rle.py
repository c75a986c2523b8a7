"""Compressed run lengths, against pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from kvision.evaluation import rle as rle_module
from kvision.evaluation.rle import check_rle, check_rles, encode, run_lengths


@given(seed=st.integers(0, 10_000), density=st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_what_pycocotools_encodes_is_accepted(seed, density):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 300, 2)
    mask = (rng.random(size) < density).astype(np.uint8)
    check_rle(coco_mask.encode(np.asfortranarray(mask)), tuple(size.tolist()))
    runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=2, append=2)))
    runs = np.concatenate(([0] if mask[0, 0] else [], runs))
    rle = coco_mask.encode(np.asfortranarray(mask))
    np.testing.assert_array_equal(run_lengths(rle["counts"]), runs)


@given(counts=st.one_of(st.binary(max_size=40), st.text(max_size=40)))
@settings(max_examples=200, deadline=None)
def test_garbage_is_refused(counts):
    with pytest.raises(ValueError, match="do not add up to 997 x 1009"):
        check_rle({"size": [997, 1009], "counts": counts})


def random_masks(seed: int, number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 60, 2)
    return [(rng.random(shape) < rng.random()).astype(np.uint8) for _ in range(number)]


def encoded(edges: list[np.ndarray], size: tuple[int, int]) -> list[dict]:
    instance = np.repeat(np.arange(len(edges)), [len(edge) for edge in edges])
    return encode(instance, np.concatenate(edges), len(edges), size)


@given(seed=st.integers(0, 10_000), number=st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_encode_writes_what_pycocotools_does(seed: int, number: int) -> None:
    masks = random_masks(seed, number)
    edges = [np.flatnonzero(np.diff(m.T.ravel(), prepend=0, append=0)) for m in masks]
    for mask, found in zip(masks, encoded(edges, masks[0].shape), strict=True):
        expected = coco_mask.encode(np.asfortranarray(mask))
        assert found["counts"] == expected["counts"].decode()
        assert found["size"] == expected["size"]


def test_changes_at_one_pixel_cancel_in_pairs() -> None:
    places = [[2, 5, 5, 7], [3, 3, 3, 8], [4, 4]]
    found = encoded([np.array(place) for place in places], (3, 4))
    expected = encoded([np.array([2, 7]), np.array([3, 8]), np.array([], int)], (3, 4))
    assert found == expected


def test_large_numbers() -> None:
    edges = [
        np.array([0, 5_000_000]),
        np.array([11_999_999, 12_000_000]),
        np.array([], int),
    ]
    for found, edge in zip(encoded(edges, (3000, 4000)), edges, strict=True):
        bounds = np.diff([0, *edge, 12_000_000])
        runs = {"size": [3000, 4000], "counts": bounds.tolist()}
        expected = coco_mask.frPyObjects(runs, 3000, 4000)["counts"].decode()
        assert found["counts"] == expected.rstrip("0") or found["counts"] == expected


@given(seed=st.integers(0, 10_000), bad=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_the_first_of_many_that_is_refused(seed: int, bad: int) -> None:
    masks = random_masks(seed, 10)
    size = masks[0].shape
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]
    assert check_rles(rles, [size] * 10) == 10
    rng = np.random.default_rng(seed)
    spoilt = [
        {**rles[bad], "counts": rles[bad]["counts"] + b"1"},
        {**rles[bad], "counts": b""},
        {**rles[bad], "size": [size[0] + 1, size[1]]},
        {"size": list(size)},
        None,
        {**rles[bad], "counts": "\x01"},
        {**rles[bad], "counts": "o" * 12},
    ]
    rles[bad] = spoilt[rng.integers(len(spoilt))]
    assert check_rles(rles, [size] * 10) == bad
    with pytest.raises(ValueError, match=r"RLE|EXIF"):
        check_rle(rles[bad], size)


def test_many_more_than_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rle_module, "_CHUNK", 3)
    rles = [coco_mask.encode(np.asfortranarray(m)) for m in random_masks(1, 8)]
    sizes = [None] * 8
    assert check_rles(rles, sizes) == 8
    assert check_rles([*rles, {"size": [3, 3], "counts": "1"}], [*sizes, None]) == 8
    assert check_rles([], []) == 0
