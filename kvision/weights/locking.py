"""One process, and one thread of it, at a time."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

__all__ = ["locked"]

_log = logging.getLogger("kvision.weights")


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Wait until nobody else is in a block of the same path.

    The system ends a lock with its process, however that ends. The file stays: if it
    were removed, two could hold two files of one name.

    Args:
        path: an empty file that is made.
        what: what the others are doing, for the message to who waits.

    Yields:
        None.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two at once do the work twice
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("Waiting for another process: %s", what)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a network disk without locks
            _log.warning("%s cannot be locked: %s", path, error)
        yield
