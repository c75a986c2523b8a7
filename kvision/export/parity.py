"""Every exported form runs beside its model; what differs is printed and judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kvision.export.matching import Difference, Spread

__all__ = ["Parity", "ParityError", "check", "in_batches", "runner"]

Array = np.ndarray
Outputs = dict[str, Array]
Run = Callable[[Array], Mapping[str, Array]]


@dataclass(frozen=True)
class Parity:
    """How an exported artefact compares with its model.

    Attributes:
        path: the artefact.
        num_bytes: its size.
        differences: one for each form that was run (signatures, quantisation).
    """

    path: Path
    num_bytes: int
    differences: tuple[Difference, ...]

    @property
    def is_conclusive(self) -> bool:
        """Whether every form was judged by enough detections or by an AP."""
        return all(difference.is_conclusive for difference in self.differences)

    @property
    def problems(self) -> list[str]:
        """What exceeds a tolerance, a sentence each; empty if nothing does."""
        return [text for each in self.differences for text in each.problems]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a json file."""
        return {
            "path": str(self.path),
            "num_bytes": self.num_bytes,
            "is_conclusive": self.is_conclusive,
            "problems": self.problems,
            "differences": [each.to_dict() for each in self.differences],
        }

    def print(self) -> None:
        """Print a table of the differences, and what they do not prove."""
        from rich.console import Console

        console = Console()
        console.print(self._table())
        for each in self.differences:
            if each.ap:
                text = f"{each.form}: {_ap_text(each.ap)}"
                console.print(text, highlight=False, soft_wrap=True)
            if not each.is_conclusive:
                console.print(
                    f"{each.form}: only {each.num_detections} detections to compare, "
                    "which proves little. Give photos that hold objects: images=, or "
                    "data= with annotations.",
                    highlight=False,
                )

    def _table(self) -> Any:
        from rich.table import Table

        images = max((each.num_images for each in self.differences), default=0)
        megabytes = f"{self.num_bytes / 1e6:.1f} MB"
        table = Table(
            title=f"{self.path} ({megabytes}) against the model, {images} images",
            caption="median / largest difference of pairs",
        )
        table.add_column("form", no_wrap=True)
        for column in ("found", "no pair", "boxes px", "scores", "masks"):
            table.add_column(column, justify="right", no_wrap=True)
        for each in self.differences:
            spreads = (each.boxes, each.scores, each.masks)
            table.add_row(
                each.form,
                str(each.num_detections),
                str(each.num_unmatched),
                *(_spread_text(spread) for spread in spreads),
            )
        return table


class ParityError(ValueError):
    """An exported artefact differs from its model by more than the tolerance.

    Attributes:
        parity: all that was measured.
    """

    def __init__(self, parity: Parity) -> None:
        self.parity = parity
        super().__init__(
            f"{parity.path} was not written, it differs from the model: "
            + "; ".join(parity.problems)
        )


def check(parity: Parity) -> Parity:
    """Print a parity and raise if it exceeds a tolerance.

    Args:
        parity: what was measured.

    Returns:
        The same.

    Raises:
        ParityError: a tolerance is exceeded.
    """
    parity.print()
    if parity.problems:
        raise ParityError(parity)
    return parity


def runner(model: Any) -> Run:
    """Make a graph of the model itself.

    Args:
        model: a detector.

    Returns:
        Function from images (B, H, W, C) to a dict of tensors.
    """
    # Not `predict`: of an uncompiled model it would be XLA's numbers.
    return tf.function(lambda images: model(images, training=False))


def in_batches(run: Run, images: Array, batch_size: int = 4) -> Outputs:
    """Run a function over images, a few at a time.

    Args:
        run: images (B, ...) -> dict of arrays or tensors with B rows.
        images: (N, ...) array.
        batch_size: images a time; the last batch is filled up, so that `run` sees one
            shape only.

    Returns:
        The dict with N rows, as arrays.
    """
    batch_size = min(batch_size, len(images))
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        filling = np.repeat(batch[:1], batch_size - len(batch), axis=0)
        outputs = run(tf.constant(np.concatenate([batch, filling])))
        parts.append({k: np.asarray(v)[: len(batch)] for k, v in outputs.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _spread_text(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:.1g}/{spread.largest:.1g}"


def _ap_text(ap: dict[str, tuple[float, float]]) -> str:
    losses = (
        f"{name.replace('_ap', ' AP')} {100 * model:.2f} to {100 * form:.2f} "
        f"({100 * (form - model):+.2f} points)"
        for name, (model, form) in ap.items()
    )
    return ", ".join(losses)
