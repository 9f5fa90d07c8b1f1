"""Lists that change while a cache is made of them: clips come and go, and processes are killed.

Several commands at once, each with a list of its own, work on one cache; then the whole list is
made. Each video's features must be those of a cache that nobody disturbed, and no finished shard be
written again.
"""

import csv
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attnact.cache.features import FeatureCache
from tests.torture.judging import Row, told_badly
from tests.torture.kill import finished_files
from tests.torture.making import CACHE, FEATURES, LIST, draw
from tests.torture.processes import Process, attnact

OTHERS = "made with other videos"  # what the command says of an index that lists them
ALWAYS = 8  # of the 16 videos: both sides of a fold


def rows(folder: Path, seed: int, trials: int | None) -> Iterator[Row]:
    """One row; `trials` caches."""
    draw(folder)
    row = Row("clips added and taken away while `features` is killed")
    random = np.random.default_rng(seed)
    expected = made(row, FEATURES)
    with LIST.open(newline="") as file:
        header, *videos = csv.reader(file)
    kills = again = 0
    for _ in range(trials or 5):
        row.trials += 1
        shutil.rmtree("features")
        for _ in range(3):
            commands = [some(header, videos, i, random) for i in range(2)]
            there = finished_files(Path("features"))
            processes = [attnact(it, Path(f"log{i}")) for i, it in enumerate(commands)]
            for process in processes:
                kills += ended(row, process, float(random.uniform(0, 2)))
            now = finished_files(Path("features"))
            row.lost += [f"{it} made again" for it in there if now.get(it) != there[it]]
            if random.integers(2):
                CACHE.unlink(missing_ok=True)  # as whoever wants the new videos is told to
        CACHE.unlink(missing_ok=True)
        found = made(row, FEATURES)
        again += len(FeatureCache(CACHE).paths)
        row.wrong += [f"{it}: other features" for it in expected if found[it] != expected[it]]
    row.note = f"{kills} killed, {again} videos held against those of an undisturbed cache"
    yield row


def some(
    header: list[str], videos: list[list[str]], number: int, random: np.random.Generator
) -> list[str]:
    """The command for a list of some of the videos, in an order of its own, and the same cache."""
    chosen = [*videos[:ALWAYS], *(it for it in videos[ALWAYS:] if random.integers(2))]
    path = LIST.with_stem(f"list{number}")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *random.permutation(chosen).tolist()])
    return [*FEATURES[:-1], str(path), "--out", str(CACHE)]


def ended(row: Row, process: Process, seconds: float) -> bool:
    """Whether the process had to be killed; of one that ended, what it said is judged."""
    code = process.wait(seconds)
    if code is None:
        process.end(signal.SIGKILL)
        process.wait()
        process.orphans()
        return True
    if OTHERS not in process.text():
        row.wrong += told_badly(code, process.text(), (0,))
    return False


def made(row: Row, command: list[str]) -> dict[str, int]:
    """The checksum of each video's features, of a cache that is made to its end."""
    code = (process := attnact(command, Path("log"))).wait()
    row.wrong += ["hangs"] if code is None else told_badly(code, process.text(), (0,))
    cache = FeatureCache(CACHE)
    row.wrong += [problem for problem in cache.verify() if problem]
    return {path: it.checksum for path, it in zip(cache.paths, cache.rows, strict=True)}
