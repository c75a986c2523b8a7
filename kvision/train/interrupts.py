"""Ctrl-C and SIGTERM: end a run at a moment when everything is consistent."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Interrupted", "Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The run was asked to end; nothing is half done.

    Attributes:
        signal: SIGINT or SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)

    def as_usual(self) -> BaseException:
        """Return what Python raises: KeyboardInterrupt, or SystemExit with 143."""
        if self.signal == signal.SIGINT:
            return KeyboardInterrupt()
        return SystemExit(128 + self.signal)


class Interrupts:
    """Takes note of SIGINT and SIGTERM, and raises where it is safe.

    A handler runs between any two instructions of Python, so an exception out of it
    could leave weights swapped or files half recorded. This one raises by itself only
    inside `allowed`; elsewhere `check` does. A second signal always raises.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._allowed = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals in this block (in the main thread; others get none)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Raise at once in this block, which changes nothing that is kept."""
        self.check()
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False
        self.check()

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self._received is not None:
            raise Interrupted(self._received)

    def _note(self, number: int, frame: Any) -> None:
        again = self._received is not None
        self._received = number
        if again or self._allowed:
            self._allowed = False
            raise Interrupted(number)
