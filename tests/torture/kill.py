"""Kills at random moments: SIGKILL, SIGTERM, Ctrl-C, and the system's own for want of memory.

That one falls on the process which is largest then, and is done here by hand.

Each command is run once undisturbed, then begun again and again, killed at a moment drawn from the
time that the undisturbed one took, and taken up, until it has been killed so often; whenever it
finishes in between, its files are compared and it starts from nothing.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from attnact.errors import RunError
from attnact.machine import children
from attnact.model.checkpoint import load_state
from tests.torture.judging import Row, differences, digests, half_written, told_badly
from tests.torture.making import FEATURES, RUN, SMALL, TRAIN, draw
from tests.torture.processes import Process, attnact, members

COMMANDS: dict[str, tuple[list[str], Path]] = {
    "features": (FEATURES, Path("features")),
    "train": (TRAIN, RUN),
    "sweep-lambda": (
        ["sweep-lambda", "--lambdas", "0,1", "--epochs", "2", *SMALL],
        Path("runs/balls/sweep-lambda"),
    ),
    "table1": (["table1", "--epochs", "1", *SMALL], Path("runs/balls/table1")),
}
# What ends it, and the exit code of one that did not come to its end before.
KILLS = {
    "SIGKILL": (signal.SIGKILL, -9),
    "SIGTERM": (signal.SIGTERM, -15),
    "Ctrl-C": (signal.SIGINT, 130),
    "out of memory": (signal.SIGKILL, -9),
}


def rows(folder: Path, seed: int, trials: int | None) -> Iterator[Row]:
    """A row for each command; `trials` kills of each."""
    draw(folder)
    for number, (name, (command, made)) in enumerate(COMMANDS.items()):
        random = np.random.default_rng([seed, number])
        yield torture(name, command, made, trials or 10, random)
        if name == "features":
            yield decoders_killed(trials or 10, random)


def torture(
    name: str, command: Sequence[str], made: Path, kills: int, random: np.random.Generator
) -> Row:
    """Kills one command so many times; what it made is there at the end."""
    row = Row(f"`{name}` killed")
    begun = time.monotonic()
    code = (process := attnact(command, Path("log"))).wait()
    seconds, expected = time.monotonic() - begun, digests(made)
    assert code == 0, process.text()
    shutil.rmtree(made)
    finished, counts = 0, dict.fromkeys(KILLS, 0)
    while True:
        kill = row.trials < kills
        moment = random.uniform(0, seconds)
        how = list(KILLS)[int(random.integers(len(KILLS)))]
        number, _ = KILLS[how]
        resume = ["train", "--resume", str(made)] if name == "train" else command
        whole = finished_files(made)
        process = attnact(resume if (made / "config.json").exists() else command, Path("log"))
        code = process.wait(moment) if kill else process.wait()
        if code is None:
            process.end(number, process.pid if how != "out of memory" else largest(process.pid))
            code = process.wait()
            row.trials += 1
            counts[how] += 1
            where = f"{how} {row.trials} after {moment:.2f} of {seconds:.2f} s"
            bad = judge(process, code, how) + half_written(made, expected)
            row.wrong += [f"{where}: {it}" for it in bad]
            row.lost += [f"{where}: {it}" for it in lost(made)]
        if again := [file for file, stamp in whole.items() if finished_files(made)[file] != stamp]:
            row.lost.append(f"after kill {row.trials}: made again: {again}")
        if code == 0:
            finished += 1
            found = differences(digests(made), expected)
            row.wrong += [f"after kill {row.trials}: {it}" for it in found]
            if not kill:
                break
            shutil.rmtree(made)
    killed = ", ".join(f"{count} {how}" for how, count in counts.items())
    row.note = f"{killed}; {finished} times finished, {len(expected)} files the same each time"
    return row


def decoders_killed(trials: int, random: np.random.Generator) -> Row:
    """Kills the decoder alone, as the system does for want of memory; nobody begins anew."""
    command, made = COMMANDS["features"]
    row, expected = Row("a decoder of `features` killed"), digests(made)
    for _ in range(trials):
        shutil.rmtree(made)
        process = attnact(command, Path("log"))
        while not (decoders := [pid for pid in members(process.pid) if is_decoder(pid)]):
            assert process.wait(0.01) is None, process.text()
        time.sleep(random.uniform(0, 3))
        for pid in decoders:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        row.trials += 1
        code = process.wait()
        row.wrong += ["hangs"] if code is None else told_badly(code, process.text(), (0,))
        row.wrong += differences(digests(made), expected)
    return row


def largest(group: int) -> int:
    """The process that takes the most memory, which the system ends first."""
    sizes = {}
    for pid in members(group):
        with suppress(OSError):
            sizes[pid] = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return max(sizes, key=lambda pid: sizes[pid], default=group)


def is_decoder(pid: int) -> bool:
    """Whether it is one that decodes, and no copy of its parent any more."""
    try:
        return children.__name__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def judge(process: Process, code: int | None, how: str) -> list[str]:
    """What is wrong with how a killed command ended; its words matter after Ctrl-C alone."""
    if code is None:
        return ["hangs after the signal"]
    bad = [f"processes {left} left"] if (left := process.orphans()) else []
    number, due = KILLS[how]
    # A signal may come when all is done, or before Python can turn it into words; and what lacks
    # memory may be a decoder.
    return bad + told_badly(code, process.text(), (due, -number, 0))


def lost(made: Path) -> list[str]:
    """Where more than a shard or an epoch of a stopped command has to be done again."""
    # One whose frames are all through may still be closed when the next is begun.
    # What an earlier kill left of a shard that was made since is of no account.
    open_ = {file.with_name(file.name.split(".")[0]) for file in made.rglob("*.h5.*.part")}
    shards = [it for it in open_ if it.name.isdigit() and not it.with_suffix(".h5").exists()]
    parts = sorted(int(it.name) for it in shards)
    bad = [f"shards {parts} at once"] if parts and parts[-1] - parts[0] > 1 else []
    for metrics in made.rglob("metrics.jsonl"):
        told = len(metrics.read_text().splitlines())
        try:
            state = load_state(metrics.with_name("last.ckpt"))
        except RunError as error:
            return [str(error)]
        kept = state["history"].count('"epoch"') if state else 0
        if not told - 1 <= kept <= told:
            bad.append(f"{metrics}: {told} epochs told, {kept} kept")
    return bad


def finished_files(made: Path) -> dict[Path, int]:
    """When the shards and the results of finished runs were written: they stay as they are."""
    shards = list(made.rglob("0*.h5"))
    done = [file.with_name("model.safetensors") for file in made.rglob("summary.json")]
    return {file: file.stat().st_mtime_ns for file in [*shards, *done]}
