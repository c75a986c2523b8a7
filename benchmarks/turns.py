"""A contestant's side of a contest: prepare, then work whenever asked to.

It runs in the environment of every peer, so it imports the standard library alone.
"""

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable

from benchmarks.memory import peak_megabytes, resident_megabytes

__all__ = ["take_turns"]

Work = Callable[[], object]

# Seconds; what takes longer is warm after the first call.
_LONG = 30.0


def take_turns(prepare: Callable[[], Work], *packages: str) -> None:
    """Prepare and warm up, then for every line of standard input work for a while.

    Call it once everything is imported. It prints JSON objects: the seconds that
    preparing and the first call took; for each line, which says for how many seconds to
    work, those of each call; at an empty line, the last, the most memory above that
    after the imports.

    Args:
        prepare: builds what is measured and returns a function without arguments, which
            returns once its results can be read.
        *packages: whose versions are worth telling.
    """
    before = resident_megabytes()
    work, prepare_seconds = _timed(prepare)
    _, first_seconds = _timed(work)
    if first_seconds < _LONG:
        work()
    _say(
        prepare_seconds=prepare_seconds,
        first_seconds=first_seconds,
        versions={name: importlib.metadata.version(name) for name in packages},
    )
    for line in sys.stdin:
        if not line.strip():
            break
        calls: list[float] = []
        while sum(calls) < float(line):
            calls.append(_timed(work)[1])
        _say(calls=calls)
    _say(peak_megabytes=peak_megabytes() - before)


def _timed(function: Callable[[], object]) -> tuple:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)
