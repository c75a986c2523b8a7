"""How far apart the logits of an exported classifier and of its model are."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

__all__ = ["LogitsDifference", "compare_logits"]

Array = np.ndarray

# Of a file with fewer bits: what it may change on images of the user.
_LEAST_KEPT = 0.98
_LEAST_CORRELATION = 0.99


@dataclass(frozen=True)
class LogitsDifference:
    """How far apart the logits of an exported form and of its model are.

    Attributes:
        form: what was run: a signature, or a kind of file.
        num_images: images compared.
        num_left_out: images not compared, as rounding decides which patches the model
            keeps of them.
        num_kept: images whose top class is the same.
        largest: largest difference of two logits.
        relative: that, as a share of the model's largest logit.
        correlation: Pearson's, of all logits of all images; None where they are all
            alike.
        tolerance: largest allowed `relative`; None where numbers are expected to differ
            (files of fewer bits).
        is_judged: whether the top class must be kept on 98 % of the images (at least
            all but one) and logits be correlated by 0.99: of files of fewer bits, on
            images that the user gave.
        accuracy: share of labels that the model and the form meet; None without labels.
        max_accuracy_lost: largest allowed loss of that, or None.
    """

    form: str
    num_images: int
    num_kept: int
    largest: float
    relative: float
    correlation: float | None
    tolerance: float | None = None
    is_judged: bool = False
    accuracy: tuple[float, float] | None = None
    max_accuracy_lost: float | None = None
    num_left_out: int = 0

    COLUMNS: ClassVar = ("top class kept", "logits", "relative", "correlation")
    CAPTION: ClassVar = "largest difference of two logits"

    @property
    def is_conclusive(self) -> bool:
        """Whether the model tells the images apart at all."""
        return self.correlation is not None

    @property
    def cells(self) -> list[str]:
        """A text for each of `COLUMNS`."""
        correlation = "" if self.correlation is None else f"{self.correlation:.6f}"
        kept = f"{self.num_kept} of {self.num_images}"
        if self.num_left_out:
            kept += f", {self.num_left_out} left out"
        return [kept, f"{self.largest:.1g}", f"{self.relative:.1g}", correlation]

    @property
    def remarks(self) -> list[str]:
        """Sentences to print under the table."""
        found = []
        if self.accuracy is not None:
            model, form = self.accuracy
            found.append(
                f"{self.form}: accuracy {100 * model:.2f} to {100 * form:.2f} "
                f"({100 * (form - model):+.2f} points)"
            )
        if self.num_left_out:
            found.append(
                f"{self.form}: {self.num_left_out} images left out: which patches are "
                "kept of them is a matter of rounding"
            )
        if not self.is_conclusive:
            found.append(
                f"{self.form}: the model gives every image the same logits, which "
                "proves little. Was it trained?"
            )
        return found

    @property
    def problems(self) -> list[str]:
        """What exceeds a tolerance, a sentence each; empty if nothing does."""
        return [*self._too_far(), *self._turned(), *self._accuracy_lost()]

    def _too_far(self) -> list[str]:
        # Not `>`: a form that gives NaN is too far as well.
        if self.tolerance is None or self.relative <= self.tolerance:
            return []
        return [
            f"{self.form}: logits differ by up to {self.largest:.3g}, "
            f"{self.relative:.2g} of the largest; allowed are {self.tolerance:g}"
        ]

    def _turned(self) -> list[str]:
        if not self.is_judged:
            return []
        found = []
        turned = self.num_images - self.num_kept
        if turned > max(1, (1 - _LEAST_KEPT) * self.num_images):
            found.append(
                f"{self.form}: {turned} of {self.num_images} images get another top "
                f"class; {100 * _LEAST_KEPT:g} % must keep theirs"
            )
        if self.correlation is not None and not self.correlation >= _LEAST_CORRELATION:
            found.append(
                f"{self.form}: logits are correlated by {self.correlation:.4f} only; "
                f"at least {_LEAST_CORRELATION} is expected"
            )
        return found

    def _accuracy_lost(self) -> list[str]:
        if self.accuracy is None or self.max_accuracy_lost is None:
            return []
        model, form = self.accuracy
        # One image may always turn.
        allowed = max(self.max_accuracy_lost, 1.001 / self.num_images)
        if model - form <= allowed:
            return []
        return [
            f"{self.form}: accuracy fell from {model:.4f} to {form:.4f}, "
            f"{100 * (model - form):.2f} points; allowed are {100 * allowed:.2g}"
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers for a json file."""
        return {**asdict(self), "is_conclusive": self.is_conclusive}


def compare_logits(
    form: str,
    reference: Mapping[str, Array],
    candidate: Mapping[str, Array],
    *,
    decided: Array | None = None,
    tolerance: float | None = 1e-4,
    is_judged: bool = False,
    labels: Array | None = None,
    max_accuracy_lost: float | None = None,
) -> LogitsDifference:
    """Measure two runs over the same images.

    Args:
        form: name of the candidate.
        reference: the model's outputs, `logits` (N, K) among them.
        candidate: outputs of the exported form, alike.
        decided: (N,) bool array, the images to compare, one at least; None for all.
        tolerance: largest allowed difference, as a share of the model's largest logit.
        is_judged: see `LogitsDifference`.
        labels: (N,) integers, for the accuracy.
        max_accuracy_lost: largest allowed loss of accuracy.

    Returns:
        The difference.
    """
    total = len(reference["logits"])
    chosen = np.ones(total, bool) if decided is None else decided
    expected, found = (
        np.asarray(side["logits"], np.float64)[chosen]
        for side in (reference, candidate)
    )
    labels = None if labels is None else labels[chosen]
    largest = float(np.abs(expected - found).max())
    scale = float(np.abs(expected).max())
    tops = expected.argmax(axis=1), found.argmax(axis=1)
    accuracy = None
    if labels is not None:
        accuracy = float(np.mean(tops[0] == labels)), float(np.mean(tops[1] == labels))
    return LogitsDifference(
        form=form,
        num_images=len(expected),
        num_kept=int(np.sum(tops[0] == tops[1])),
        largest=largest,
        relative=largest / scale if scale else largest,
        correlation=_correlation(expected, found),
        tolerance=tolerance,
        is_judged=is_judged,
        accuracy=accuracy,
        max_accuracy_lost=max_accuracy_lost,
        num_left_out=total - len(expected),
    )


def _correlation(expected: Array, found: Array) -> float | None:
    if len(expected) > 1 and np.ptp(expected, axis=0).max() == 0:
        return None
    deviations = [values - values.mean() for values in (expected, found)]
    norms = [float(np.sqrt(np.sum(values**2))) for values in deviations]
    if norms[0] == 0:
        return None
    # A form whose logits are all alike is not correlated with anything.
    return float(np.sum(deviations[0] * deviations[1]) / (norms[0] * norms[1] or 1.0))
