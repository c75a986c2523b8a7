"""Runs a piece of a test and refuses what it takes too much of."""

import contextlib
import time
import tracemalloc
from collections.abc import Iterator


@contextlib.contextmanager
def bounded(megabytes: float = 32, seconds: float = 60) -> Iterator[None]:
    """Fail if the block takes more memory or time.

    Address space that is asked for counts as memory, touched or not. The seconds only
    catch what would not end: tests run beside others.
    """
    tracemalloc.start()
    begin = time.monotonic()
    try:
        yield
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < megabytes * 2**20, f"{taken / 2**20:.0f} MB"
    assert time.monotonic() - begin < seconds
