"""Signals: taken note of, raised where it is safe."""

import os
import signal
import threading

import pytest

from kvision.train.interrupts import Interrupted, Interrupts


def send(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_noted_outside_and_raised_at_the_check() -> None:
    interrupts = Interrupts()
    with interrupts.handled():
        interrupts.check()
        send(signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            interrupts.check()
    assert caught.value.signal == signal.SIGTERM


def send_and_fail() -> None:
    send()
    pytest.fail("it went on")


def test_raised_at_once_where_allowed() -> None:
    interrupts = Interrupts()
    with interrupts.handled(), pytest.raises(Interrupted), interrupts.allowed():
        send_and_fail()


def test_one_that_came_before_is_raised_on_entry() -> None:
    interrupts = Interrupts()
    with interrupts.handled():
        send()
        with pytest.raises(Interrupted), interrupts.allowed():
            pytest.fail("entered")


def test_a_second_signal_always_raises() -> None:
    interrupts = Interrupts()
    with interrupts.handled():
        send()
        with pytest.raises(Interrupted):
            send()


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts().handled():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert after == before


def test_another_thread_handles_none() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with Interrupts().handled():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def test_what_python_usually_raises() -> None:
    assert isinstance(Interrupted(signal.SIGINT).as_usual(), KeyboardInterrupt)
    usual = Interrupted(signal.SIGTERM).as_usual()
    assert isinstance(usual, SystemExit)
    assert usual.code == 143
