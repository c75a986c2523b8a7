"""kvision beside what a user would pick instead: python -m benchmarks NAME."""

import argparse
import shutil
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.contest import compete
from benchmarks.report import as_json, markdown, table_of, write_section
from benchmarks.suite import SUITE, Places, limits

_PEERS = ("torch", "keras_hub")


def main(argv: list[str] | None = None) -> None:
    """Measure, print a table, write a JSON file and, if asked, rows of RESULTS.md."""
    arguments = parse(argv)
    pythons = {"kvision": sys.executable, **dict(arguments.peer)}
    places = Places(pythons, arguments.data, arguments.small)
    contest = SUITE[arguments.name]
    try:
        contestants = contest(places)
    except ValueError as error:
        sys.exit(str(error))
    # Plain products take turns too: how fast the machine is changes by the minute.
    rulers = limits(places) if any(one.gflop for one in contestants) else []
    results = compete([*contestants, *rulers], arguments.turns, arguments.seconds)
    results, measured = results[: len(contestants)], results[len(contestants) :]
    Console(width=140).print(table_of(results, measured))
    output = arguments.output or Path(f"{arguments.name}.json")
    output.write_text(as_json(arguments.name, results, measured))
    print(output)
    if arguments.results:
        text = markdown(contest.__doc__ or "", command(arguments), results, measured)
        write_section(arguments.results, arguments.name, text)
        print(arguments.results)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=SUITE, metavar="NAME", help=", ".join(SUITE))
    parser.add_argument(
        "--peer",
        type=peer,
        action="append",
        default=[],
        metavar="KIND=PYTHON",
        help="interpreter of a peer's environment: torch (benchmarks/peers/torch.txt) "
        "or keras_hub (benchmarks/peers/keras_hub.txt); may be repeated",
    )
    parser.add_argument("--data", type=Path, help="folder of a COCO data set")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a turn")
    parser.add_argument("--output", type=Path, help="JSON file; default NAME.json")
    parser.add_argument("--results", type=Path, help="RESULTS.md to write rows into")
    parser.add_argument("--small", action="store_true", help="only to see that it runs")
    return parser.parse_args(argv)


def peer(argument: str) -> tuple[str, str]:
    """Read KIND=PYTHON."""
    kind, _, python = argument.partition("=")
    if kind not in _PEERS or not shutil.which(python):
        raise argparse.ArgumentTypeError(
            f"expected KIND=PYTHON with KIND one of {', '.join(_PEERS)} and PYTHON an "
            f"interpreter that is there, received {argument!r}"
        )
    return kind, python


def command(arguments: argparse.Namespace) -> str:
    """Return the command without what is where on this machine."""
    words = ["python -m benchmarks", arguments.name]
    for kind, _ in arguments.peer:
        words.append(f"--peer {kind}={kind.upper()}_PYTHON")
    if arguments.data:
        words.append("--data COCO")
    words.append(f"--turns {arguments.turns} --seconds {arguments.seconds:g}")
    return " ".join(words)


if __name__ == "__main__":
    main()
