"""Processes of our own: started so that Ctrl-C does not reach them, and ended when we end."""

import ctypes
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Lock
from types import ModuleType
from typing import Any

WRITTEN_DOWN = 1.0  # seconds
STARTING = Lock()  # children are started by several threads, and see one main module


def start_child(
    serve: Callable[..., None], *arguments: Any, daemon: bool
) -> tuple[BaseProcess, "Connection[Any, Any]"]:
    """Runs `serve(connection, *arguments)` there; gives the process and our end of the connection.

    daemon: whether it may start no child of its own. Such a one does not run the program's main
        module again, as Python would: few scripts say `if __name__ == "__main__"`.
    """
    # spawn: a forked child would hold copies of CUDA, threads and open HDF5 files.
    context = multiprocessing.get_context("spawn")
    connection, childs_end = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(childs_end, *arguments), daemon=daemon)
    resource_tracker.ensure_running()  # or the first child starts it, which lifts what is blocked
    # Ctrl-C is ours to handle: blocked, it cannot stop a child before the child ignores it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with STARTING, without_main() if daemon else nullcontext():
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        childs_end.close()  # so that the child's death reads as the end of the pipe
    return process, connection


@contextmanager
def without_main() -> Iterator[None]:
    """Python does not find the main module meanwhile, which a child would run again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def exit_code(process: BaseProcess) -> int | None:
    """Waits for its end. A thread that starts another child may collect this one's exit code first.

    Python then tells us of none, until that thread has written it down.
    """
    process.join()
    end = time.monotonic() + WRITTEN_DOWN
    while process.exitcode is None and time.monotonic() < end:
        time.sleep(0.001)
    return process.exitcode


def end_with_parent(number: signal.Signals) -> None:
    """In the child: ignores Ctrl-C, and gets this signal when the parent ends in whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(parent_death_signal, number)
