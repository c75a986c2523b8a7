"""COCO's compressed run lengths, many masks at a time.

A mask is written column by column as the lengths of runs of 0 and 1 in turn, beginning
with 0. A number is written in characters of 5 bits, the lowest first; bit 6 says that
another follows, and the highest bit of the last is the sign. From the fourth on a
number is the difference from the one two places before (cocodataset/cocoapi
`common/maskApi.c`).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["check_rle", "check_rles", "encode", "run_lengths"]

Array = np.ndarray
RLE = dict[str, Any]

# Masks decoded at once: each character takes a few dozen bytes meanwhile.
_CHUNK = 1000
# Characters of the longest number that is believed.
_LONGEST = 8


def check_rle(rle: Any, size: tuple[int, int] | None = None) -> None:
    """Refuse a compressed RLE that pycocotools would hang or run wild on.

    Args:
        rle: dict with `size` and `counts`.
        size: (height, width) that it should have; None for any.

    Raises:
        ValueError: it is malformed, or for an image of another size.
    """
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        raise ValueError(f"expected an RLE with size and counts, received {rle!r:.60}")
    if size is not None and tuple(rle["size"]) != tuple(size):
        raise ValueError(
            f"its mask is for (height, width) {list(rle['size'])}, the image has "
            f"{list(size)}; is its EXIF orientation applied in both?"
        )
    runs = run_lengths(rle["counts"])
    height, width = rle["size"]
    if runs is None or runs.min() < 0 or runs.sum() != height * width:
        raise ValueError(f"the runs of its RLE do not add up to {height} x {width}")


def check_rles(rles: Sequence[Any], sizes: Sequence[tuple[int, int] | None]) -> int:
    """Do as `check_rle` with many.

    Args:
        rles: dicts with `size` and `counts`.
        sizes: (height, width) that each should have; None for any.

    Returns:
        The index of the first one that `check_rle` refuses; their number if none.
    """
    for start in range(0, len(rles), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        if not _are_sound(rles[chunk], sizes[chunk]):
            return start + _first_refused(rles[chunk], sizes[chunk])
    return len(rles)


def _are_sound(rles: Sequence[Any], sizes: Sequence[tuple[int, int] | None]) -> bool:
    """Tell whether all of some masks are certainly well formed."""
    try:
        given = [tuple(rle["size"]) for rle in rles]
        counts = [rle["counts"] for rle in rles]
        texts = [c.encode() if isinstance(c, str) else bytes(c) for c in counts]
    except (AttributeError, KeyError, TypeError):
        return False
    if any(s is not None and tuple(s) != g for s, g in zip(sizes, given, strict=True)):
        return False
    decoded = _decoded(texts)
    if decoded is None:
        return False
    runs, firsts = decoded
    areas = np.array([height * width for height, width in given])
    return bool(
        runs.min() >= 0 and np.array_equal(np.add.reduceat(runs, firsts), areas)
    )


def _first_refused(rles: Sequence[Any], sizes: Sequence[tuple[int, int] | None]) -> int:
    for index, (rle, size) in enumerate(zip(rles, sizes, strict=True)):
        try:
            check_rle(rle, size)
        except ValueError:
            return index
    return len(rles)


def run_lengths(counts: str | bytes) -> Array | None:
    """Decode compressed counts.

    Args:
        counts: the characters.

    Returns:
        (R,) int64 array; None where they are malformed.
    """
    text = counts.encode() if isinstance(counts, str) else counts
    decoded = _decoded([text]) if isinstance(text, bytes) else None
    return None if decoded is None else decoded[0]


def _decoded(texts: list[bytes]) -> tuple[Array, Array] | None:
    """Decode counts of several masks into one array, with the index of each's first."""
    if not texts or not all(texts):
        return None
    digits = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    is_last = digits & 32 == 0
    text_ends = np.cumsum([len(text) for text in texts])
    if digits.min() < 0 or digits.max() > 63 or not is_last[text_ends - 1].all():
        return None
    ends = np.flatnonzero(is_last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        return None
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31) << (5 * place), starts)
    numbers -= (digits[ends] & 16 > 0) * (1 << (5 * lengths))
    firsts = np.concatenate(([0], np.cumsum(is_last)[text_ends[:-1] - 1]))
    return _summed(numbers, firsts), firsts


def _summed(numbers: Array, firsts: Array) -> Array:
    """Add to each number from the fourth of a mask on the one two places before."""
    place = np.arange(len(numbers)) - np.repeat(
        firsts, np.diff(firsts, append=len(numbers))
    )
    # Two sequences: places 1, 3, 5 ... and 2, 4, 6 ...; place 0 stands alone.
    runs = numbers.copy()
    for parity in (1, 0):
        chosen = np.flatnonzero((place % 2 == parity) & (place > 0))
        if not chosen.size:
            continue
        sums = np.cumsum(numbers[chosen])
        is_first = place[chosen] <= 2
        before = (sums - numbers[chosen])[is_first]
        group = np.cumsum(is_first) - 1
        runs[chosen] = sums - before[group]
    return runs


def encode(edges: list[Array], size: tuple[int, int]) -> list[RLE]:
    """Write masks given by where they change.

    Args:
        edges: for each mask the ascending positions, counted column by column, at which
            a run of 1 begins or ends, in turn.
        size: (height, width) of the image in pixels.

    Returns:
        Dicts `{"size": [height, width], "counts": str}`.
    """
    height, width = int(size[0]), int(size[1])
    bounds = [np.concatenate(([0], e, [height * width])) for e in edges]
    runs = [np.diff(bound) for bound in bounds]
    runs = [run if run[-1] or len(run) == 1 else run[:-1] for run in runs]
    if not runs:
        return []
    numbers = np.concatenate(runs)
    starts = np.cumsum([0, *(len(run) for run in runs)])
    place = np.arange(len(numbers)) - np.repeat(starts[:-1], np.diff(starts))
    is_difference = np.flatnonzero(place > 2)
    values = numbers.copy()
    values[is_difference] -= numbers[is_difference - 2]
    text, lengths = _characters(values)
    ends = np.concatenate(([0], np.cumsum(lengths)))[starts].tolist()
    return [
        {"size": [height, width], "counts": text[first:last]}
        for first, last in itertools.pairwise(ends)
    ]


def _characters(values: Array) -> tuple[str, Array]:
    """Write numbers; return the text and how many characters each has taken."""
    # The sign takes a bit of its own.
    bits = int(max(values.max(), -values.min())).bit_length() + 1
    shifts = 5 * np.arange(-(-bits // 5))
    groups = (values[:, None] >> shifts) & 31
    rest = values[:, None] >> (shifts + 5)
    follows = np.where(groups & 16, rest != -1, rest != 0)
    # A number ends with the first group after which nothing follows.
    is_written = np.ones_like(follows)
    is_written[:, 1:] = np.logical_and.accumulate(follows, axis=1)[:, :-1]
    characters = (groups + 32 * follows + 48).astype(np.uint8)[is_written]
    return characters.tobytes().decode("ascii"), is_written.sum(axis=1)
