"""Processes of our own: started so that Ctrl-C does not reach them, and ended when we end.

Not those of `multiprocessing`, which run the program's main script again (few say
`if __name__ == "__main__"`), and end with a traceback if the parent was killed as it started them.
"""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

# `-c` would find modules in the folder at hand first, where any file may be called random.py.
CHILD = """
import sys
sys.path[:] = {path!r}
from attnact.machine.children import run
run({end})
"""

Child = subprocess.Popen[bytes]


def start_child(
    serve: Callable[..., None], *arguments: Any, files: Sequence[int] = ()
) -> tuple[Child, "Connection[Any, Any]"]:
    """Runs `serve(connection, *arguments)` there; gives the process and our end of the connection.

    The child has these open files of ours too, under the same numbers.

    Raises:
        OSError: it cannot be started, or ended before it knew what to do.
    """
    connection, childs_end = Pipe()
    childs_work, work = Pipe(duplex=False)
    end = childs_end.fileno()
    command = [sys.executable, "-c", CHILD.format(path=[*map(str, sys.path)], end=end)]
    # Ctrl-C is ours to handle: blocked, it cannot stop a child before the child ignores it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with childs_end, childs_work:  # closed, so that the child's death ends the pipes
            process = subprocess.Popen(command, stdin=childs_work.fileno(), pass_fds=[end, *files])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        with work:
            work.send((serve, arguments))
    except BaseException:
        end_child(process, connection)
        raise
    return process, connection


def end_child(process: Child, connection: "Connection[Any, Any]") -> None:
    """Kills a process of ours, waits until it is dead, and closes the connection."""
    process.kill()
    process.wait()
    connection.close()


def run(end: int) -> None:
    """The child: reads what to do, which a parent that was killed has not told to its end."""
    work = Connection(sys.stdin.fileno(), writable=False)
    try:
        serve, arguments = work.recv()
    except (EOFError, OSError):
        sys.exit(1)
    serve(Connection(end), *arguments)


def end_with_parent(number: signal.Signals) -> None:
    """In the child: ignores Ctrl-C, and gets this signal when the parent ends in whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(parent_death_signal, number)
