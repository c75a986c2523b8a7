"""Contestants in turns, A B A B, each in a process of its own that stays."""

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Contestant", "Result", "compete"]

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Contestant:
    """Who takes part.

    Attributes:
        name: in the table.
        command: of a process that calls `benchmarks.turns.take_turns`.
        units: what one call does, such as 8 images.
        gflop: floating-point operations of a unit in matrix products and convolutions,
            in billions; 0 where time goes elsewhere.
        precision: of those products.
        group: of a sweep, such as one size of images; compared with each other are
            those of a group.
    """

    name: str
    command: list[str]
    units: float = 1
    gflop: float = 0.0
    precision: str = "float32"
    group: str = ""


@dataclass
class Result:
    """What was measured of a contestant.

    Attributes:
        name: of the contestant.
        gflop: of a unit.
        precision: of its products.
        group: of the contestant.
        rates: units a second in each turn.
        prepare_seconds: until the model was built.
        first_seconds: of the first call.
        peak_megabytes: the most memory above that after the imports.
        versions: of the packages it is made of.
    """

    name: str
    gflop: float
    precision: str
    group: str = ""
    rates: list[float] = field(default_factory=list)
    prepare_seconds: float = 0.0
    first_seconds: float = 0.0
    peak_megabytes: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Units a second in the median turn."""
        return statistics.median(self.rates)

    def times_of(self, other: "Result") -> float:
        """Return how many times another's rate this is: the median of the pairs."""
        pairs = zip(self.rates, other.rates, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    def share_of(self, limits: list["Result"]) -> float:
        """Return its operations a second as a share of plain products of a precision.

        Args:
            limits: results of plain products in turns with it.

        Returns:
            The share of the fastest of those, or 0 where there is nothing to compare.
        """
        rivals = [one for one in limits if one.precision == self.precision]
        if not rivals or not self.gflop:
            return 0.0
        best = max(one.median * one.gflop for one in rivals)
        return self.median * self.gflop / best


def compete(contestants: list[Contestant], turns: int, seconds: float) -> list[Result]:
    """Start all contestants, give them turns, and stop them.

    Args:
        contestants: who takes part.
        turns: of each.
        seconds: of a turn.

    Returns:
        A result for each, in their order.

    Raises:
        RuntimeError: a process ended early; its messages are on standard error.
    """
    results = [
        Result(one.name, one.gflop, one.precision, one.group) for one in contestants
    ]
    processes: list[subprocess.Popen] = []
    try:
        for contestant, result in zip(contestants, results, strict=True):
            _tell(f"{contestant.name}: prepares")
            processes.append(_start(contestant.command))
            for name, value in _answer(processes[-1], contestant).items():
                setattr(result, name, value)
        for turn in range(turns):
            for contestant, process, result in zip(
                contestants, processes, results, strict=True
            ):
                print(seconds, file=process.stdin, flush=True)
                calls = _answer(process, contestant)["calls"]
                result.rates.append(contestant.units / statistics.median(calls))
                _tell(f"turn {turn + 1}: {contestant.name} {result.rates[-1]:.3g}/s")
        for contestant, process, result in zip(
            contestants, processes, results, strict=True
        ):
            print("", file=process.stdin, flush=True)
            result.peak_megabytes = _answer(process, contestant)["peak_megabytes"]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return results


def _start(command: list[str]) -> subprocess.Popen:
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def _answer(process: subprocess.Popen, contestant: Contestant) -> dict:
    """Read lines until one is a JSON object: libraries print too."""
    for line in process.stdout or ():
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError(
        f"{contestant.name} ended with status {process.wait()}, its messages above: "
        + " ".join(contestant.command)
    )


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
