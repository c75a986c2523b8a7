"""kvision beside what a user would pick instead: python -m benchmarks NAME."""

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contest import Result, compete
from benchmarks.suite import SUITE


def main() -> None:
    """Measure, print a table and write a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=SUITE, metavar="NAME", help=", ".join(SUITE))
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="KIND=PYTHON",
        help="interpreter of a peer's environment: torch (benchmarks/peers/torch.txt) "
        "or keras_hub (benchmarks/peers/keras_hub.txt); may be repeated",
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a turn")
    parser.add_argument("--output", type=Path, help="JSON file; default NAME.json")
    arguments = parser.parse_args()
    pythons = {"kvision": sys.executable} | dict(
        p.split("=", 1) for p in arguments.peer
    )
    contestants = SUITE[arguments.name](pythons)
    results = compete(contestants, arguments.turns, arguments.seconds)
    Console(width=110).print(table_of(results))
    output = arguments.output or Path(f"{arguments.name}.json")
    output.write_text(
        json.dumps(
            {
                "name": arguments.name,
                "machine": machine(),
                "results": [dataclasses.asdict(result) for result in results],
            },
            indent=2,
        )
    )
    print(output)


def table_of(results: list[Result]) -> Table:
    """Make a table of the results; the first is what the others are compared with."""
    table = Table("", "a second", "least-most", "kvision / it", "first, s", "peak, MB")
    for result in results:
        table.add_row(
            result.name,
            f"{result.median:.3g}",
            f"{min(result.rates):.3g}-{max(result.rates):.3g}",
            f"{results[0].times_of(result):.2f}",
            f"{result.first_seconds:.2f}",
            f"{result.peak_megabytes:.0f}",
        )
    return table


def machine() -> dict[str, str]:
    """Describe the processor and the versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    versions = {
        name: importlib.metadata.version(name) for name in ("tensorflow", "keras")
    }
    python = platform.python_version()
    return {"processor": f"{len(models)} x {models[0]}", "python": python, **versions}


if __name__ == "__main__":
    main()
