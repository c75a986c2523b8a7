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

# Masks decoded at once: what they take meanwhile fits into the cache of a core.
_CHUNK = 100
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


def encode(
    instance: Array, place: Array, number: int, size: tuple[int, int]
) -> list[RLE]:
    """Write masks given by where they change.

    Args:
        instance: (X,) ascending int array: of which mask each change is.
        place: (X,) int array, ascending for each mask: the pixel, counted column by
            column, at which a run of 1 begins or ends, in turn. An even number of
            changes at one pixel is none.
        number: of masks.
        size: (height, width) of the image in pixels.

    Returns:
        `number` dicts `{"size": [height, width], "counts": str}`.
    """
    if not number:
        return []
    height, width = int(size[0]), int(size[1])
    runs, starts = _runs(*_changes(instance, place), number, height * width)
    order = np.arange(len(runs)) - np.repeat(starts[:-1], np.diff(starts))
    is_difference = np.flatnonzero(order > 2)
    values = runs.copy()
    values[is_difference] -= runs[is_difference - 2]
    text, ends = _characters(values)
    bounds = np.concatenate(([0], ends))[starts].tolist()
    return [
        {"size": [height, width], "counts": text[first:last]}
        for first, last in itertools.pairwise(bounds)
    ]


def _changes(instance: Array, place: Array) -> tuple[Array, Array]:
    """Keep one of an odd number of changes at a pixel, and none of an even number."""
    is_first = np.ones(len(place), bool)
    is_first[1:] = (place[1:] != place[:-1]) | (instance[1:] != instance[:-1])
    firsts = np.flatnonzero(is_first)
    kept = firsts[np.diff(firsts, append=len(place)) % 2 == 1]
    return instance[kept], place[kept]


def _runs(instance: Array, place: Array, number: int, area: int) -> tuple[Array, Array]:
    """Return the runs of all masks, and where those of each begin and the last end."""
    stops = np.searchsorted(instance, np.arange(number), side="right")
    # A run of 0 to the end of the image is written, one of length 0 is not.
    is_open = np.ones(number, bool)
    filled = np.diff(stops, prepend=0) > 0
    is_open[filled] = place[stops[filled] - 1] < area
    bounds = np.insert(place, stops[is_open], area)
    starts = np.concatenate(([0], stops + np.cumsum(is_open)))
    before = np.concatenate(([0], bounds[:-1]))
    before[starts[:-1]] = 0
    return bounds - before, starts


def _characters(values: Array) -> tuple[str, Array]:
    """Write numbers; return the text and where each of them ends in it."""
    # What takes n bits without its sign takes n + 1 with it.
    sizes = np.where(values < 0, ~values, values)
    lengths = np.ones(len(values), np.intp)
    for bits in range(4, int(sizes.max()).bit_length(), 5):
        lengths += sizes >= 1 << bits
    ends = np.cumsum(lengths)
    text = np.empty(ends[-1], np.uint8)
    place = ends - lengths
    for last in range(1, int(lengths.max()) + 1):
        longer = lengths > last
        text[place] = (values & 31) + 32 * longer + 48
        values, place = values[longer] >> 5, place[longer] + 1
        lengths = lengths[longer]
    return text.tobytes().decode("ascii"), ends
