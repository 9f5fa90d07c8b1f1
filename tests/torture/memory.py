"""Too little memory: the system kills what takes most, at the moment when it takes too much.

The limit is that of a control group (version 1, made by root), drawn below what the command takes
undisturbed; after the kill it is typed again without one.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.torture.judging import Row, differences, digests, half_written, told_badly
from tests.torture.kill import COMMANDS, finished_files, lost
from tests.torture.making import draw
from tests.torture.processes import attnact

GROUPS = Path("/sys/fs/cgroup/memory")


def rows(folder: Path, seed: int, trials: int | None) -> Iterator[Row]:
    """A row for each command; `trials` limits for each."""
    draw(folder)
    for number, (name, (command, made)) in enumerate(COMMANDS.items()):
        random = np.random.default_rng([seed, number])
        row = Row(f"`{name}`, too little memory")
        if may_limit():
            starve(row, command, made, trials or 10, random)
        else:
            row.note = "not tried: no control groups here"
        yield row


def may_limit() -> bool:
    """Whether the memory of a group of processes can be limited here."""
    try:
        with limited():
            return True
    except OSError:
        return False


@contextmanager
def limited(size: int = 1 << 40) -> Iterator[Path]:
    """A control group whose processes may take so many bytes together."""
    group = GROUPS / f"attnact-torture-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(size))
        yield group
    finally:
        group.rmdir()


def run(command: list[str], group: Path) -> tuple[int | None, list[str]]:
    """The exit code of the command in that group, and what is wrong with how it ended."""

    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    process = attnact(command, Path("log"), enter)
    code = process.wait()
    if code is None:
        process.end()
        process.wait()
        return None, ["hangs"]
    left = process.orphans()
    return code, [f"processes {left} left"] * bool(left) + told_badly(
        code, process.text(), (0, 1, -9)
    )


def starve(
    row: Row, command: list[str], made: Path, trials: int, random: np.random.Generator
) -> None:
    """Runs the command with so many limits; what it made is there at the end."""
    with limited() as group:
        code, _ = run(command, group)
        peak = int((group / "memory.max_usage_in_bytes").read_text())
    assert code == 0
    expected = digests(made)
    shutil.rmtree(made)
    stopped = 0
    for _ in range(trials):
        whole = finished_files(made)
        resume = ["train", "--resume", str(made)] if command[0] == "train" else command
        with limited(int(peak * random.uniform(0.02, 0.9))) as group:
            code, bad = run(resume if (made / "config.json").exists() else command, group)
        row.trials += 1
        stopped += code != 0
        row.wrong += bad + half_written(made, expected)
        row.lost += lost(made)
        row.lost += [f"made again: {it}" for it in whole if finished_files(made)[it] != whole[it]]
        if code == 0:
            row.wrong += differences(digests(made), expected)
            shutil.rmtree(made)
    process = attnact(resume if (made / "config.json").exists() else command, Path("log"))
    if process.wait() != 0:
        row.wrong.append(f"does not go on: {process.text()[-300:]!r}")
    row.wrong += differences(digests(made), expected)
    row.note = f"{stopped} killed, the others had enough"
