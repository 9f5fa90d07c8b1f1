"""Ctrl-C where Python would raise it at a bad moment."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SOON = 0.01  # seconds


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C waits until this is over: raised in what HDF5 calls, it would crash the process."""
    if threading.current_thread() is not threading.main_thread():  # the others never see it
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def heard() -> Iterator[None]:
    """Ctrl-C is raised again where Python drops it: in callbacks of weak references, destructors.

    Those run at any moment; what they raise is shown as "Exception ignored" and forgotten.
    """
    before = sys.unraisablehook

    def dropped(what: Any) -> None:
        if what.exc_type is not KeyboardInterrupt:
            before(what)
            return
        # Not here, for it would be dropped like the first.
        main = threading.main_thread().ident
        later = threading.Timer(SOON, signal.pthread_kill, (main, signal.SIGINT))
        later.daemon = True
        later.start()

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before
