"""Disks that fill up, forbid writing, break off in the middle of a file, or go away.

Each command must end with 1 and one line that says why, must leave nothing that passes for whole,
and must come out with the same bytes once it may write again. A full disk is a small tmpfs where
root may mount one; the limit on the size of a file is what fails a write in the middle of it.
"""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tests.torture.judging import Row, differences, digests, half_written, told_badly
from tests.torture.making import FEATURES, RUN, SMALL, TRAIN, draw
from tests.torture.processes import attnact, without_root

SWEEP = ["sweep-lambda", "--lambdas", "0,1", "--epochs", "1", *SMALL]
COMMANDS = {
    "features": (FEATURES, Path("features")),
    "train": (TRAIN, RUN),
    "sweep-lambda": (SWEEP, Path("runs/balls/sweep-lambda")),
}


def rows(folder: Path, seed: int, trials: int | None) -> Iterator[Row]:
    """A row for each fault of each command."""
    draw(folder)
    for number, (name, (command, made)) in enumerate(COMMANDS.items()):
        process = attnact(command, Path("log"))
        assert process.wait() == 0, process.text()
        expected, size = digests(made), bytes_below(made)
        for fault, breaks in FAULTS.items():
            random = np.random.default_rng([seed, number])
            row = Row(f"`{name}`, {fault}")
            if breaks is full and not may_mount(folder):
                row.note = "not tried: no tmpfs can be mounted here"
                yield row
                continue
            refused = 0
            for _ in range(trials or 3):
                shutil.rmtree(made)
                refused += trial(row, command, made, expected, breaks(made, size, random))
            row.note = f"{refused} stopped, the others were done before"
            yield row


def trial(
    row: Row,
    command: list[str],
    made: Path,
    expected: dict[str, str],
    broken: AbstractContextManager[Callable[[], object]],
) -> bool:
    """Runs the command while the disk is broken, then when it is mended; whether it stopped."""
    row.trials += 1
    with broken as before:
        process = attnact(command, Path("log"), before)
        code = process.wait()
        words = process.text()
        if code is None:
            process.end()
            process.wait()
            row.wrong.append("hangs")
        elif code == 0 and differences(digests(made), expected):
            row.wrong.append("ends with 0 without having written all")
        elif code != 0:
            row.wrong += told_badly(code, words, (1,))
        row.wrong += half_written(made, expected) if made.exists() else []
        row.wrong += [f"processes {left} left"] if (left := process.orphans()) else []
    begun = command is TRAIN and (made / "config.json").exists()
    process = attnact(["train", "--resume", str(made)] if begun else command, Path("log"))
    if process.wait() != 0:
        row.wrong.append(f"does not go on: {process.text()[-300:]!r}")
    row.wrong += [f"when mended: {it}" for it in differences(digests(made), expected)]
    return code != 0


@contextmanager
def full(made: Path, size: int, random: np.random.Generator) -> Iterator[Callable[[], object]]:
    """A disk with room for a part of what the command writes."""
    made.mkdir(parents=True)
    room = int(size * random.uniform(0.05, 0.95)) // 4096 * 4
    option = f"size={max(room, 4)}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "none", made], check=True)
    kept = Path("kept")
    try:
        # The room is asked for beforehand, which is another fault: here it shrinks later.
        yield lambda: setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 60))
        shutil.copytree(made, kept)
    finally:
        subprocess.run(["umount", made], check=True)
    shutil.copytree(kept, made, dirs_exist_ok=True)
    shutil.rmtree(kept)


@contextmanager
def short(made: Path, size: int, random: np.random.Generator) -> Iterator[Callable[[], object]]:
    """A file may not grow beyond a limit: a write fails in the middle of it.

    A decoder lifts the limit where it may: its frames lie in what is a file to Linux. Now and then
    it may not.
    """
    limit, lifted = int(random.uniform(100, 60_000)), random.random() < 0.5

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most if lifted else limit))

    yield before


@contextmanager
def forbidden(made: Path, size: int, random: np.random.Generator) -> Iterator[Callable[[], object]]:
    """The folder may be read, not written."""
    made.mkdir(parents=True)
    made.chmod(0o555)
    yield without_root
    made.chmod(0o755)


@contextmanager
def gone(made: Path, size: int, random: np.random.Generator) -> Iterator[Callable[[], object]]:
    """The folder vanishes as soon as something is in it, as when a disk is unplugged."""
    moment = random.uniform(0, 1)

    def before() -> None:
        if os.fork() == 0:
            for _ in range(3000):
                if made.exists():
                    break
                time.sleep(0.01)
            time.sleep(moment)
            made.rename("unplugged") if made.exists() else None
            os._exit(0)

    yield before
    if Path("unplugged").exists():
        shutil.rmtree(made, ignore_errors=True)
        Path("unplugged").rename(made)


def may_mount(folder: Path) -> bool:
    """Whether a tmpfs can be mounted here."""
    try:
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True, capture_output=True)
        subprocess.run(["umount", folder], check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def bytes_below(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


FAULTS = {
    "disk full": full,
    "write fails in mid-file": short,
    "read-only folder": forbidden,
    "folder gone": gone,
}
