"""Every exported form runs beside its model; what differs is printed and judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kvision.export.logits import LogitsDifference
from kvision.export.matching import Difference

__all__ = ["Parity", "ParityError", "check", "in_batches", "runner"]

Array = np.ndarray
Outputs = dict[str, Array]
Run = Callable[..., Mapping[str, Array]]  # of inputs by name, images the first


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
    differences: "tuple[Difference, ...] | tuple[LogitsDifference, ...]"

    @property
    def is_conclusive(self) -> bool:
        """Whether every form was judged by enough to go by."""
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
            for remark in each.remarks:
                console.print(remark, highlight=False, soft_wrap=True)

    def _table(self) -> Any:
        from rich.table import Table

        images = max((each.num_images for each in self.differences), default=0)
        megabytes = f"{self.num_bytes / 1e6:.1f} MB"
        title = f"{self.path} ({megabytes}) against the model, {images} images"
        first = self.differences[:1]
        table = Table(title=title, caption=first[0].CAPTION if first else None)
        table.add_column("form", no_wrap=True)
        for column in first[0].COLUMNS if first else ():
            table.add_column(column, justify="right", no_wrap=True)
        for each in self.differences:
            table.add_row(each.form, *each.cells)
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
        model: a detector, or a `Classifier`.

    Returns:
        Function from images (B, H, W, C), and regions by name, to a dict of tensors.
    """
    # Not `predict`: of an uncompiled model it would be XLA's numbers.
    return tf.function(
        lambda images, **regions: model(images, **regions, training=False)
    )


def in_batches(run: Run, inputs: Mapping[str, Array], batch_size: int = 4) -> Outputs:
    """Run a function over images, a few at a time.

    Args:
        run: inputs by name, B rows each -> dict of arrays or tensors with B rows.
        inputs: name -> (N, ...) array.
        batch_size: images a time; the last batch is filled up, so that `run` sees one
            shape only.

    Returns:
        The dict with N rows, as arrays.
    """
    total = min(map(len, inputs.values()))
    batch_size = min(batch_size, total)
    parts = []
    for start in range(0, total, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), total - 1)
        outputs = run(**{k: tf.constant(v[rows]) for k, v in inputs.items()})
        parts.append({k: np.asarray(v)[: total - start] for k, v in outputs.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
