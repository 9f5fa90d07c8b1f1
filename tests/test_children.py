"""Processes of our own: what is known of their end."""

import os
import signal
import threading
import time
from typing import Any

from attnact.extract.children import exit_code, start_child


def wait(connection: Any) -> None:
    time.sleep(600)


def test_the_exit_code_of_a_child_that_another_thread_collects():
    """As one does that starts a child at that moment: Python tells of no exit code meanwhile."""
    process, connection = start_child(wait, daemon=True)
    collected = threading.Event()

    def collect() -> None:
        _, status = os.waitpid(process.pid, 0)
        collected.set()
        time.sleep(0.1)
        process._popen.returncode = os.waitstatus_to_exitcode(status)

    thread = threading.Thread(target=collect)
    thread.start()
    process.kill()
    collected.wait()
    assert process.exitcode is None
    assert exit_code(process) == -signal.SIGKILL
    thread.join()
    connection.close()
