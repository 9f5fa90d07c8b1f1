"""Commands in forked processes: started in no time, killed at any, with nothing left behind.

A fork has every library loaded, so that a kill falls into work and not into imports. Only the
network of the extraction is a stand-in: the mean colours of each location, in its place.
"""

import ctypes
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from attnact.__main__ import main
from attnact.commands import caches, experiments, extraction, training  # noqa: F401
from attnact.extract import choosing, plan
from attnact.train import evaluate  # noqa: F401
from attnact.train.experiments import grid, sweep, table1  # noqa: F401

PATIENCE = 300.0  # seconds; other work may hold the machine


class StandIn:
    """A backbone that needs no time: what it gives depends on the frame alone."""

    name, weights, digest, is_random = "googlenet", "stand-in", "0123", False
    runtime, precision = "torch", "float32"
    device = torch.device("cpu")

    def start(self, frames: Tensor) -> Callable[[], Tensor]:
        """The features of `__call__` in float16, when they are asked for."""
        return self(frames).half

    def __call__(self, frames: Tensor) -> Tensor:
        """Feature cubes (n, 7, 7, 1024): colours, each in channels of its own."""
        colours = frames.reshape(-1, 7, 32, 7, 32, 3).float().mean((2, 4)) / 255
        cubes = torch.zeros(len(frames), 7, 7, 1024)
        cubes[..., :96] = colours.repeat_interleave(32, -1)
        return cubes


@dataclass
class Process:
    """A command that runs in a process group of its own."""

    pid: int
    log: Path
    peak: int = field(default=0)  # KiB of the largest process of it

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Its exit code, minus the signal that ended it, or None if it still runs."""
        end = time.monotonic() + seconds
        while True:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.peak = max(used.ru_maxrss, self.peak)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= end:
                return None
            time.sleep(0.002)

    def end(self, number: signal.Signals = signal.SIGKILL, pid: int = 0) -> None:
        """Sends the signal, to another process of it if told so; Ctrl-C as a terminal to all."""
        with suppress(ProcessLookupError):
            if number == signal.SIGINT:
                os.killpg(self.pid, number)
            else:
                os.kill(pid or self.pid, number)

    def text(self) -> str:
        """What it wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def orphans(self, seconds: float = 60.0) -> list[int]:
        """The processes of its group that still run, after time enough to end; they are ended."""
        end = time.monotonic() + seconds
        while (left := members(self.pid)) and time.monotonic() < end:
            time.sleep(0.02)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left


def attnact(
    arguments: Sequence[str],
    log: Path,
    before: Callable[[], object] = lambda: None,
    shard_frames: int = 64,
) -> Process:
    """Starts the command in a fork of this process; `before` is done there first."""

    def work() -> None:
        before()
        choosing.load_backbone = lambda *_: StandIn()
        plan.SHARD_FRAMES = shard_frames
        sys.argv = ["attnact", *arguments]
        main()

    return start(work, log)


def start(work: Callable[[], object], log: Path) -> Process:
    """Does the work in a fork of this process, with its words in a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Process(pid, log)
    code = 70  # of what nobody caught
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(words, 1)
        os.dup2(words, 2)
        os.environ["SOURCE_DATE_EPOCH"] = "0"
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:  # before the work began
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def without_root() -> None:
    """Gives up root's right to read and write whatever files forbid, here and in what is run."""
    if os.geteuid():
        return
    libc, drop = ctypes.CDLL(None, use_errno=True), 24  # PR_CAPBSET_DROP
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(drop, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3; this process
    kept = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; the same, upper halves
    libc.capget(header, kept)
    kept[0] &= ~0b110
    kept[1] &= ~0b110
    if libc.capset(header, kept):
        raise OSError(ctypes.get_errno(), "capset")


def members(group: int) -> list[int]:
    """The processes of a session that are no zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = stat.read_text().rsplit(")", 1)[1].split()[:4]
            if int(session) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found
