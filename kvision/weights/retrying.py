"""Trying again where a fault of the network may pass."""

import email.utils
import logging
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PASSING_CODES", "FetchError", "PassingError", "retried", "wait_of"]

T = TypeVar("T")

PASSING_CODES = (408, 429, 500, 502, 503, 504)

_PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds
_LONGEST = 120.0

_log = logging.getLogger("kvision.weights")
_sleep = time.sleep


class FetchError(ValueError):
    """A file could not be had, or is not the one it should be."""


class PassingError(FetchError):
    """A fault that may have passed a moment later.

    Args:
        message: what happened.
        wait: seconds after which the server wants to be asked again; None where it does
            not say.
        advanced: whether more has been received than ever before.
    """

    def __init__(
        self, message: str, wait: float | None = None, advanced: bool = False
    ) -> None:
        super().__init__(message)
        self.wait = wait
        self.advanced = advanced


def retried(attempt: Callable[[], T]) -> T:
    """Try up to five times, with longer and longer pauses.

    Args:
        attempt: raises `PassingError` where trying again makes sense; those that got
            further than all before do not count.

    Returns:
        What `attempt` returns.

    Raises:
        FetchError: that of the last attempt, or of one after which the server wants to
            be left alone for more than two minutes.
    """
    faults = 0
    while True:
        try:
            return attempt()
        except PassingError as error:
            faults = 0 if error.advanced else faults + 1
            if faults > len(_PAUSES):
                raise FetchError(f"{error}. Tried {faults} times") from error
            wait = _PAUSES[max(faults - 1, 0)] if error.wait is None else error.wait
            if wait > _LONGEST:
                raise FetchError(
                    f"{error}. The server asks to wait for {wait:.0f} seconds"
                ) from error
            _log.warning("%s. Trying again in %.0f s", error, wait)
        _sleep(wait)


def wait_of(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which may also be a date.

    Args:
        retry_after: its value, or None.

    Returns:
        Seconds from now, or None.
    """
    text = (retry_after or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, then.timestamp() - time.time())
