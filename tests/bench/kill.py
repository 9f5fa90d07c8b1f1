"""Kills an extraction and a training with SIGKILL at random moments, and compares what comes out.

    python -m tests.bench.kill [--kills 20] [--seed 0]

Each is run once undisturbed, then begun again and again and killed at a moment drawn from the time
that the undisturbed one took, until it has been killed so often; whenever it finishes in between,
its files are compared and it starts from nothing. Fails unless every byte is the same.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from attnact.demo import draw_videos

# Small shards, so that a small extraction has many borders to be killed at.
PROGRAM = """
import sys
from attnact.extract import plan
plan.SHARD_FRAMES = 128
from attnact.cli import main
main(prog_name="attnact")
"""
FEATURES = ["features", "folder", "--videos", "balls.csv", "--weights", "random"]
TRAIN = ["train", "--lstm-layers", "1", "--hidden-size", "64", "--batch-size", "8", "--epochs", "6"]


@click.command()
@click.option("--kills", default=20, show_default=True, help="Of the extraction and of training.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
def main(kills: int, seed: int) -> None:
    """Kill an extraction and a training, and compare what comes out."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        draw_videos(Path("videos"), Path("balls.csv"), scenes=6)
        torture("extraction", FEATURES, FEATURES, Path("features"), "*.h5", kills, random)
        run = Path("runs/balls/it")
        begin, resume = [*TRAIN, "--name", run.name], ["train", "--resume", str(run)]
        torture("training", begin, resume, run, "[mps]*", kills, random)


def torture(
    what: str,
    begin: Sequence[str],
    resume: Sequence[str],
    made: Path,
    pattern: str,
    kills: int,
    random: np.random.Generator,
) -> None:
    """Kills the command so many times; `made` is what it makes."""
    start = time.monotonic()
    assert attnact(begin) == 0
    seconds, expected = time.monotonic() - start, digests(made, pattern)
    shutil.rmtree(made)
    killed = finished = 0
    while True:
        moment = random.uniform(0, seconds) if killed < kills else None
        code = attnact(resume if (made / "config.json").exists() else begin, moment)
        if code != 0:
            killed += 1
            print(f"{what}: kill {killed} after {moment:.1f} s of {seconds:.1f} s", flush=True)
            continue
        finished += 1
        found = digests(made, pattern)
        assert found == expected, f"{what}: other bytes after kill {killed}: {found} {expected}"
        if killed >= kills:
            break  # what was made stays for the next
        shutil.rmtree(made)
    names = ", ".join(sorted(expected))
    print(f"{what}: {killed} kills, {finished} times finished, the same bytes each time: {names}")


def attnact(arguments: Sequence[str], moment: float | None = None) -> int:
    """Runs the command, and kills it at the moment; its exit code, or -9."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "SOURCE_DATE_EPOCH": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """SHA-256 of the files, without the seconds that metrics tell."""
    found = {}
    for file in sorted(folder.rglob(pattern)):
        content = file.read_bytes()
        if file.suffix == ".jsonl":
            lines = [json.loads(line) for line in content.splitlines()]
            content = json.dumps([{**line, "seconds": 0} for line in lines]).encode()
        found[file.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


if __name__ == "__main__":
    main()
