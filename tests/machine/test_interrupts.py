"""Ctrl-C at bad moments: it waits, or comes again."""

import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from attnact.machine.interrupts import heard, undisturbed


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_it_waits() -> None:
    before, done = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with undisturbed():
            ctrl_c()
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.getsignal(signal.SIGINT) is before


def test_it_does_not_hide_an_error_for_good() -> None:
    def work() -> None:
        with undisturbed():
            ctrl_c()
            raise ValueError("full")

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, ValueError)


def test_other_threads_never_see_it() -> None:
    handlers = []

    def work() -> None:
        with undisturbed():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


class Thing:
    """What can be referred to weakly."""


class InDestructor:
    """Ctrl-C comes as one of these goes."""

    def __del__(self) -> None:
        ctrl_c()


def by_callback() -> None:
    thing = Thing()
    kept = weakref.ref(thing, lambda _: ctrl_c())
    del thing
    assert kept() is None


def by_destructor() -> None:
    InDestructor()


@pytest.mark.parametrize("drop", [by_callback, by_destructor])
def test_it_comes_again_where_python_drops_it(
    drop: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        with heard():
            drop()
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not capfd.readouterr().err


def test_whatever_else_is_dropped_is_shown_as_ever() -> None:
    shown: list[object] = []

    class Failing:
        def __del__(self) -> None:
            raise ValueError("at the end")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda what: shown.append(what.exc_type))
        with heard():
            Failing()
    assert shown == [ValueError]
