"""How far apart two sets of detections of the same images are.

Rounding alone can turn a decision of a detector: which of two boxes with nearly equal
scores suppresses the other, or whether a score is above a threshold. So detections are
first paired, what lies on a threshold is left out, and a share of the rest may stay
without a partner.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

__all__ = ["Difference", "Spread", "Tolerance", "compare"]

Array = np.ndarray
Outputs = Mapping[str, Array]

# Boxes of one class overlap by at most the threshold of suppression, mostly 0.5, so a
# box has at most one partner above it.
_PAIR_IOU = 0.5
# Scores this close to a threshold may fall on either side of it.
_SCORE_MARGIN = 1e-3
# Fewer detections than this prove nothing.
_ENOUGH = 50
_SHARE_WITHOUT_PARTNER = 0.01


@dataclass(frozen=True)
class Tolerance:
    """The largest differences between partners.

    Attributes:
        boxes: of a coordinate, in pixels.
        scores: of a score.
        masks: of a probability in a mask.
    """

    boxes: float = 0.5
    scores: float = 1e-3
    masks: float = 1e-2


@dataclass(frozen=True)
class Spread:
    """How far apart pairs are.

    Attributes:
        median: the difference of the pair in the middle.
        largest: the difference of the worst pair.
    """

    median: float = 0.0
    largest: float = 0.0


@dataclass(frozen=True)
class Difference:
    """How far apart the detections of an exported form and of its model are.

    Attributes:
        form: what was run: a signature, or a kind of TFLite file.
        num_images: images compared.
        num_detections: detections of the model that count: not on a threshold.
        num_matched: those with a partner, within the tolerance if there is one.
        num_unmatched: detections of either side that count and have no such partner.
        boxes: of partners' coordinates in pixels.
        scores: of partners' scores.
        masks: of partners' mask probabilities; None without masks.
        tolerance: None where numbers are expected to differ (quantised files).
        ap: AP of the model and of the form in 0..1, {"box_ap": (0.41, 0.40), ...}; None
            where no data set with objects was given.
        max_ap_lost: largest allowed loss of AP in 0..1, or None.
    """

    form: str
    num_images: int
    num_detections: int
    num_matched: int
    num_unmatched: int
    boxes: Spread
    scores: Spread
    masks: Spread | None
    tolerance: Tolerance | None = None
    ap: dict[str, tuple[float, float]] | None = None
    max_ap_lost: float | None = None

    COLUMNS: ClassVar = ("found", "no pair", "boxes px", "scores", "masks")
    CAPTION: ClassVar = "median / largest difference of pairs"

    @property
    def cells(self) -> list[str]:
        """A text for each of `COLUMNS`."""
        spreads = (self.boxes, self.scores, self.masks)
        return [
            str(self.num_detections),
            str(self.num_unmatched),
            *("" if s is None else f"{s.median:.1g}/{s.largest:.1g}" for s in spreads),
        ]

    @property
    def remarks(self) -> list[str]:
        """Sentences to print under the table."""
        losses = (
            f"{name.replace('_ap', ' AP')} {100 * model:.2f} to {100 * form:.2f} "
            f"({100 * (form - model):+.2f} points)"
            for name, (model, form) in (self.ap or {}).items()
        )
        found = [f"{self.form}: {', '.join(losses)}"] if self.ap else []
        if not self.is_conclusive:
            found.append(
                f"{self.form}: only {self.num_detections} detections to compare, "
                "which proves little. Give photos that hold objects: images=, or "
                "data= with annotations."
            )
        return found

    @property
    def is_conclusive(self) -> bool:
        """Whether there were enough detections, or an AP to lose, to judge by."""
        model_aps = [model for model, _ in (self.ap or {}).values()]
        return self.num_detections >= _ENOUGH or max(model_aps, default=0) > 0

    @property
    def problems(self) -> list[str]:
        """What exceeds the tolerance, a sentence each; empty if nothing does."""
        return [*self._unmatched(), *self._ap_lost()]

    def _unmatched(self) -> list[str]:
        compared = self.num_matched + self.num_unmatched
        # Few detections may hold one that was decided by rounding.
        share = _SHARE_WITHOUT_PARTNER if compared >= _ENOUGH else 0.5
        if self.tolerance is None or self.num_unmatched <= share * compared:
            return []
        worst = f"boxes {self.boxes.largest:.3g} px, scores {self.scores.largest:.2g}"
        if self.masks is not None:
            worst += f", masks {self.masks.largest:.2g}"
        return [
            f"{self.form}: {self.num_unmatched} of {compared} detections have no "
            f"partner within {self.tolerance.boxes} px, {self.tolerance.scores} in "
            f"score and {self.tolerance.masks} in masks (the worst pairs: {worst})"
        ]

    def _ap_lost(self) -> list[str]:
        if self.ap is None or self.max_ap_lost is None:
            return []
        return [
            f"{self.form}: {name} fell from {model:.4f} to {form:.4f}, "
            f"{100 * (model - form):.2f} points; allowed are {100 * self.max_ap_lost:g}"
            for name, (model, form) in self.ap.items()
            if model - form > self.max_ap_lost
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers for a json file."""
        return {**asdict(self), "is_conclusive": self.is_conclusive}


def compare(
    form: str,
    reference: Outputs,
    candidate: Outputs,
    score_threshold: float,
    tolerance: Tolerance | None = Tolerance(),
) -> Difference:
    """Pair the detections of two runs over the same images and measure the pairs.

    Args:
        form: name of the candidate.
        reference: the model's outputs: `boxes` (B, M, 4) float32, `scores` (B, M),
            `labels` (B, M) with -1 as padding and perhaps `masks` (B, M, h, w).
        candidate: outputs of the exported form, alike.
        score_threshold: the model's threshold of scores.
        tolerance: partners that differ by more count as unmatched; None pairs all.

    Returns:
        The difference.
    """
    images = [
        _compare_image(
            {key: np.asarray(value[i]) for key, value in reference.items()},
            {key: np.asarray(value[i]) for key, value in candidate.items()},
            score_threshold,
            tolerance,
        )
        for i in range(len(reference["boxes"]))
    ]
    pairs = [pair for image in images for pair in image.pairs]
    has_masks = "masks" in reference
    return Difference(
        form=form,
        num_images=len(images),
        num_detections=sum(image.num_detections for image in images),
        num_matched=sum(image.num_matched for image in images),
        num_unmatched=sum(image.num_unmatched for image in images),
        boxes=_spread([pair[0] for pair in pairs]),
        scores=_spread([pair[1] for pair in pairs]),
        masks=_spread([pair[2] for pair in pairs]) if has_masks else None,
        tolerance=tolerance,
    )


@dataclass(frozen=True)
class _Image:
    """Counts of one image; `pairs` holds (boxes, scores, masks) of all partners."""

    num_detections: int
    num_matched: int
    num_unmatched: int
    pairs: list[tuple[float, float, float]]


def _compare_image(
    reference: Outputs,
    candidate: Outputs,
    score_threshold: float,
    tolerance: Tolerance | None,
) -> _Image:
    least = [float(side["scores"].min()) for side in (reference, candidate)]
    counts = [_counts(side, score_threshold, *least) for side in (reference, candidate)]
    pairs, num_matched = [], 0
    unmatched = [counts[0].copy(), counts[1].copy()]
    for row, partner in _partners(reference, candidate):
        pair = _difference_of(reference, row, candidate, partner)
        either_counts = counts[0][row] or counts[1][partner]
        is_within = tolerance is None or (
            pair[0] <= tolerance.boxes
            and pair[1] <= tolerance.scores
            and pair[2] <= tolerance.masks
        )
        # A pair that differs is one fault, of which both sides would tell.
        unmatched[0][row], unmatched[1][partner] = (
            either_counts and not is_within,
            False,
        )
        num_matched += bool(either_counts and is_within)
        if either_counts:
            pairs.append(pair)
    num_unmatched = int(unmatched[0].sum() + unmatched[1].sum())
    return _Image(int(counts[0].sum()), num_matched, num_unmatched, pairs)


def _counts(side: Outputs, score_threshold: float, *least_scores: float) -> Array:
    """Tell which detections are not on a threshold.

    A list without padding has one more threshold: its least score.
    """
    thresholds = [score_threshold, *(score for score in least_scores if score > 0)]
    is_clear = np.all(
        [side["scores"] > threshold + _SCORE_MARGIN for threshold in thresholds], axis=0
    )
    return np.logical_and(side["labels"] >= 0, is_clear)


def _partners(reference: Outputs, candidate: Outputs) -> list[tuple[int, int]]:
    """Pair detections of the same class one to one, the largest overlap first."""
    overlap = _iou(reference["boxes"], candidate["boxes"])
    same = reference["labels"][:, None] == candidate["labels"][None, :]
    is_real = (reference["labels"] >= 0)[:, None]
    overlap = np.where(same & is_real, overlap, 0.0)
    rows, columns = np.nonzero(overlap >= _PAIR_IOU)
    best_first = np.argsort(-overlap[rows, columns], kind="stable")
    partners: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(
        rows[best_first].tolist(), columns[best_first].tolist(), strict=True
    ):
        if row not in partners and column not in taken:
            partners[row] = column
            taken.add(column)
    return list(partners.items())


def _iou(a: Array, b: Array) -> Array:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return common / np.maximum(union, 1e-9)


def _difference_of(
    reference: Outputs, row: int, candidate: Outputs, partner: int
) -> tuple[float, float, float]:
    def largest(key: str) -> float:
        if key not in reference:
            return 0.0
        return float(np.abs(reference[key][row] - candidate[key][partner]).max())

    return largest("boxes"), largest("scores"), largest("masks")


def _spread(differences: list[float]) -> Spread:
    if not differences:
        return Spread()
    return Spread(float(np.median(differences)), float(np.max(differences)))
