"""Results of a contest as a table on the screen, a JSON file and rows of RESULTS.md."""

import dataclasses
import datetime
import json
import os
import platform
import re
from pathlib import Path

from rich.table import Table

from benchmarks.contest import Result

__all__ = ["as_json", "machine", "markdown", "table_of", "write_section"]

_COLUMNS = (
    "",
    "a second",
    "least-most",
    "of products",
    "first, s",
    "peak, MB",
)


def table_of(results: list[Result], limits: list[Result]) -> Table:
    """Make a table for the screen.

    Args:
        results: of the contestants.
        limits: of plain products.

    Returns:
        The table.
    """
    table = Table(_COLUMNS[0], *_columns(results))
    for result in [*results, *limits]:
        table.add_row(*_row(result, results, limits))
    return table


def markdown(
    title: str, command: str, results: list[Result], limits: list[Result]
) -> str:
    """Write a section of RESULTS.md.

    Args:
        title: what was measured, a line; more lines follow the command.
        command: that measured it.
        results: of the contestants.
        limits: of plain products.

    Returns:
        Heading, command, machine, versions and table.
    """
    heading, _, rest = title.partition("\n")
    versions: dict[str, str] = {}
    for result in results:
        versions |= result.versions
    facts = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [
        f"## {heading.rstrip('.')}",
        f"    {command}",
        *([" ".join(rest.split())] if rest.strip() else []),
        f"{machine()}; {facts}. {datetime.date.today()}.",
    ]
    columns = ["", *_columns(results)]
    rows = [_row(result, results, limits) for result in [*results, *limits]]
    table = [columns, ["---"] * len(columns), *rows]
    text = "\n".join("| " + " | ".join(row) + " |" for row in table)
    return "\n\n".join([*lines, text]) + "\n"


def write_section(path: Path, name: str, text: str) -> None:
    """Put a section into a file in place of the one of the same name.

    Args:
        path: of RESULTS.md. What is written by hand around the section stays.
        name: of the contest.
        text: of the section.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    block = f"{begin}\n{text}{end}\n"
    old = path.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}\n", re.DOTALL)
    if pattern.search(old):
        path.write_text(pattern.sub(lambda _: block, old))
    else:
        path.write_text(f"{old}\n{block}")


def as_json(name: str, results: list[Result], limits: list[Result]) -> str:
    """Write all that was measured.

    Args:
        name: of the contest.
        results: of the contestants.
        limits: of plain products.

    Returns:
        JSON.
    """
    content = {
        "name": name,
        "machine": machine(),
        "results": [dataclasses.asdict(result) for result in results],
        "limits": [dataclasses.asdict(result) for result in limits],
    }
    return json.dumps(content, indent=2)


def machine() -> str:
    """Describe processor and Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    name = names[0] if names else platform.processor()
    return f"{os.cpu_count()} x {name}, Python {platform.python_version()}"


def _columns(results: list[Result]) -> list[str]:
    """Name the columns: one for what each contestant of ours is compared with."""
    names = [one.name for one in _ours(results, "")] or ["kvision"]
    return [*_COLUMNS[1:3], *(f"{name} / it" for name in names), *_COLUMNS[3:]]


def _ours(results: list[Result], group: str) -> list[Result]:
    """Return those of a group whose ratios are shown."""
    ours = [one for one in results if "kvision" in one.name and one.group == group]
    return ours[: 1 if group else 3]


def _row(result: Result, results: list[Result], limits: list[Result]) -> list[str]:
    ours = _ours(results, result.group)
    ratios = [f"{one.times_of(result):.2f}" for one in ours]
    if result in limits:
        ratios = [""] * (len(_columns(results)) - len(_COLUMNS) + 1)
    share = result.share_of(limits)
    return [
        result.name,
        f"{result.median:.3g}",
        f"{min(result.rates):.3g}-{max(result.rates):.3g}",
        *ratios,
        f"{share:.2f}" if share else "",
        f"{result.first_seconds:.2f}",
        f"{result.peak_megabytes:.0f}",
    ]
