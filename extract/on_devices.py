"""One extraction on several devices of this machine, in a process for each.

This process works on the first device and starts one more for each of the others. They meet in the
cache: each claims shards that nobody has.
"""

import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from subprocess import TimeoutExpired
from types import FrameType
from typing import Any

import torch

from attnact.errors import CacheError
from attnact.extract.config import ExtractConfig
from attnact.extract.making import Report, make_shards, take_up
from attnact.extract.pipeline import Extraction
from attnact.machine.children import end_child, end_with_parent, start_child
from attnact.machine.devices import check_device
from attnact.machine.progress import note

TO_END = 10.0  # seconds for a process to leave no trace of the shards that it has in hand


def parse_devices(text: str) -> list[str]:
    """`all` → every GPU here; `cuda:0,cuda:1` → those; a CPU may be named several times.

    Raises:
        ValueError: no device is called so, or it is not here.
    """
    gpus = torch.cuda.device_count()
    if text == "all" and not gpus:
        raise ValueError("no GPU here for --devices all; leave it out to use the CPU")
    names = [f"cuda:{i}" for i in range(gpus)] if text == "all" else text.split(",")
    for name in names:
        check_device(name)
    return names


def make_on_devices(
    others: Sequence[str], extraction: Extraction, shards: Sequence[int], report: Report
) -> None:
    """Makes the shards on the extraction's own device and on others.

    Raises:
        CacheError: a device failed. What the rest could make without it is made.
    """
    helpers = [_Helper(device, extraction, shards, 1 + len(others)) for device in others]
    try:
        hear = partial(_hear, helpers, report)

        def report_all(*counts: int) -> None:
            report(*counts)
            hear(0)

        make_shards(extraction.backbone, extraction.job, shards, report_all)
        hear(None)
    finally:
        for helper in helpers:
            helper.stop()
    if failed := [helper.failure for helper in helpers if helper.failure]:
        raise CacheError(f"{failed[0]}; what the others could make is there: type it again")


class _Helper:
    """A process that makes shards on another device.

    failure: what ended it, in a line; empty if nothing did.
    """

    def __init__(
        self, device: str, extraction: Extraction, shards: Sequence[int], beside: int
    ) -> None:
        self.failure = ""
        self._device, job = device, extraction.job
        config = replace(extraction.config, device=device)
        arguments = (job.cache, job.root, config, beside, shards)
        self._process, self.connection = start_child(_serve, *arguments)

    def hear(self, report: Report) -> None:
        """Passes on what the process says next."""
        try:
            said = self.connection.recv()
        except (EOFError, OSError):
            self.connection.close()
            code = self._process.wait()
            if code and not self.failure:
                self._fail(f"its process died (exit code {code})")
        else:
            if isinstance(said, Exception):
                self._fail(str(said) or type(said).__name__)
            else:
                report(*said)

    def stop(self) -> None:
        """Ends the process if it still runs; it leaves no trace of what is not whole."""
        self._process.terminate()
        with suppress(TimeoutExpired):
            self._process.wait(TO_END)
        end_child(self._process, self.connection)

    def _fail(self, why: str) -> None:
        self.failure = f"{self._device}: {' '.join(why.split())}"
        note(f"{self.failure}; the others go on")


def _hear(helpers: Sequence[_Helper], report: Report, seconds: float | None) -> None:
    """What the helpers have said, or, without a limit of time, say until they are done."""
    while left := {it.connection: it for it in helpers if not it.connection.closed}:
        spoken = wait(list(left), seconds)
        if not spoken:
            return
        for connection in spoken:
            left[connection].hear(report)  # type: ignore[index]


def _serve(
    connection: "Connection[Any, Any]",
    cache: Path,
    root: Path,
    config: ExtractConfig,
    beside: int,
    shards: Sequence[int],
) -> None:
    """The other process: sends its counts as they come, and at last the error if there is one."""
    signal.signal(signal.SIGTERM, _end)
    end_with_parent(signal.SIGTERM)
    with suppress(ConnectionError, KeyboardInterrupt):  # the parent wants no more
        try:
            backbone, job = take_up(cache, root, config, beside)
            make_shards(backbone, job, shards, lambda *counts: connection.send(counts))
        except ConnectionError:
            raise
        except Exception as error:
            connection.send(error)


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
