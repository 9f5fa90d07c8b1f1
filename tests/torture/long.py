"""A long extraction: memory and open files are flat, however many videos have been through.

The videos are one small file under many names. Memory is that of the command and of its largest
decoder; medians are compared, of the second fifth of the shards and of the last.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high

import imageio_ffmpeg

from attnact.cache.features import FeatureCache
from tests.torture.input import TWELVE
from tests.torture.judging import Row, told_badly
from tests.torture.kill import is_decoder
from tests.torture.processes import Process, attnact, members

VIDEOS = 2000
GROWTH = 20 << 10  # KiB that a process may take more; it takes some hundred thousand
HANDLES = 3  # files that may be open more: a decoder that starts has some
PATIENCE = 1800.0  # seconds
CACHE = Path("features/many.h5")


@dataclass(frozen=True)
class Sample:
    """One look at a running extraction: the shards that are done, KiB, and open files."""

    done: int
    memory: int
    decoder: int
    handles: int


def rows(folder: Path, seed: int, trials: int | None) -> Iterator[Row]:
    """One row; `trials` is the number of videos."""
    row = Row("one extraction of many videos", trials or VIDEOS)
    root = folder / "many"
    draw(root, row.trials)
    log = folder / "log"
    command = ["features", "folder", "--videos", str(root), "--out", str(folder / CACHE)]
    process = attnact(command, log, shard_frames=12 * row.trials // 40)
    code, samples = watched(process, folder / CACHE)
    row.wrong += told_badly(code, process.text(), (0,))
    if code == 0 and len(FeatureCache(folder / CACHE).paths) != row.trials:
        row.wrong.append("videos are missing")
    judge(row, samples)
    yield row


def draw(root: Path, count: int) -> None:
    """One video of twelve frames, under so many names in two classes."""
    for side in ("a", "b"):
        (root / side).mkdir(parents=True)
    first = root / "a" / "0.avi"
    program, quiet = imageio_ffmpeg.get_ffmpeg_exe(), ["-nostdin", "-v", "error"]
    subprocess.run([program, *quiet, *TWELVE, "-c:v", "mpeg4", str(first)], check=True)
    for number in range(1, count):
        (root / "ab"[number % 2] / f"{number}.avi").hardlink_to(first)


def watched(process: Process, cache: Path) -> tuple[int, list[Sample]]:
    """Its exit code, and what was seen of it while it made shards."""
    samples: list[Sample] = []
    end = time.monotonic() + PATIENCE
    while (code := process.wait(0.1)) is None:
        if time.monotonic() > end:
            process.end()
        with suppress(OSError):  # the process may have ended just now
            done = len(list(cache.with_suffix(".shards").glob("*.h5")))
            decoders = [resident(pid) for pid in members(process.pid) if is_decoder(pid)]
            handles = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            samples.append(Sample(done, resident(process.pid), max(decoders, default=0), handles))
    return code, samples


def resident(pid: int) -> int:
    """The memory (KiB) of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) if "VmRSS:" in status else 0


def judge(row: Row, samples: list[Sample]) -> None:
    """Holds the last fifth of the shards against the second."""
    shards = max((sample.done for sample in samples), default=0)
    early = [it for it in samples if 0.2 * shards <= it.done < 0.4 * shards]
    late = [it for it in samples if 0.8 * shards <= it.done < shards]
    if not early or not late:
        row.wrong.append(f"{len(samples)} samples of {shards} shards are too few")
        return
    grown = []
    for name, bound in (("memory", GROWTH), ("decoder", GROWTH), ("handles", HANDLES)):
        before, after = (median_high(getattr(it, name) for it in part) for part in (early, late))
        if after - before > bound:
            row.wrong.append(f"{name}: {before}, later {after}")
        grown.append(f"{name} {before} → {after}")
    row.note = f"{shards} shards; {', '.join(grown)} (KiB, KiB, files)"
