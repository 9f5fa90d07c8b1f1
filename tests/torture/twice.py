"""Two processes that want the same: the work is shared or one is refused in words, never mixed."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.torture.judging import Row, differences, digests, told_badly
from tests.torture.making import FEATURES, RUN, SMALL, TRAIN, draw
from tests.torture.processes import Process, attnact

RESUME = ["train", "--resume", str(RUN)]
SWEEP = ["sweep-lambda", "--lambdas", "0,1", "--epochs", "2", *SMALL]
OTHER = [*TRAIN, "--seed", "7"]  # the same name for another run

# What is made, by whom first (undisturbed to compare with), by whom at the same time.
PAIRS: dict[str, tuple[Path, list[str], list[str]]] = {
    "two extractions into one cache": (Path("features"), FEATURES, FEATURES),
    "a training while its cache is made": (Path("features"), FEATURES, OTHER),
    "two runs of one name": (RUN, TRAIN, TRAIN),
    "two other runs of one name": (RUN, TRAIN, OTHER),
    "one run resumed twice": (RUN, RESUME, RESUME),
    "two sweeps of one name": (Path("runs/balls/sweep-lambda"), SWEEP, SWEEP),
}


def rows(folder: Path, seed: int, trials: int | None) -> Iterator[Row]:
    """A row for each pair."""
    draw(folder)
    for number, (name, (made, first, second)) in enumerate(PAIRS.items()):
        row, random = Row(name), np.random.default_rng([seed, number])
        whole = digests_of(first, made)
        others = whole if second is first else None
        shared = 0
        for _ in range(trials or 4):
            codes = trial(row, made, first, second, float(random.uniform(0, 1)))
            shared += codes == [0, 0]
            bad = differences(digests(made), whole)
            if bad and others is None and first is TRAIN:  # the other one may have been first
                others = digests_of(second, made)
            if bad and differences(digests(made), others or whole):
                row.wrong += bad
        row.note = f"{shared} times both came to an end, else one was refused"
        yield row


def digests_of(command: list[str], made: Path) -> dict[str, str]:
    """What the command makes when nobody disturbs it; it is made when this returns."""
    if command is not RESUME:
        shutil.rmtree(made, ignore_errors=True)
    code = (process := attnact(command, Path("log"))).wait()
    assert code == 0, process.text()
    return digests(made)


def trial(row: Row, made: Path, first: list[str], second: list[str], pause: float) -> list[int]:
    """Both at once, the second a moment later; their exit codes."""
    row.trials += 1
    if first is RESUME:
        for name in ("summary.json", "last.ckpt", "model.safetensors"):
            (made / name).unlink(missing_ok=True)  # to be trained again
    else:
        shutil.rmtree(made)
    if made == Path("features"):
        shutil.rmtree(RUN, ignore_errors=True)
    processes: list[Process] = [attnact(first, Path("log1"))]
    time.sleep(pause / 4)
    processes.append(attnact(second, Path("log2")))
    codes = [process.wait() for process in processes]
    for process, code in zip(processes, codes, strict=True):
        if code is None:
            process.end()
            process.wait()
            row.wrong.append("hangs")
        else:
            row.wrong += told_badly(code, process.text(), (0, 1))
    if 0 not in codes:
        row.wrong.append(f"neither came to an end: {[process.text() for process in processes]}")
    return [code if code is not None else -1 for code in codes]
