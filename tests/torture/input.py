"""Bad input: videos, lists, configs, caches and checkpoints that were mutated.

No traceback, no hang, no memory that grows; every bad video is named with its reason and the
others are in the cache.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from attnact.cache.features import FeatureCache
from attnact.cache.shards import shard_path
from tests.torture.judging import Row, told_badly
from tests.torture.making import CACHE, LIST, RUN, SMALL, made
from tests.torture.mutating import mutate, names
from tests.torture.processes import PATIENCE, Process, attnact, members, without_root

MEMORY = 200 * 1024  # KiB that a process may take more than it does for sound input
BATCH = 50  # videos of one extraction

LAVFI = ["-f", "lavfi", "-i"]
SOURCE = [*LAVFI, "testsrc2=size=64x48:rate=25:duration=0.5"]
TWELVE = [*SOURCE, "-pix_fmt", "yuv420p"]
# Sound files that ffmpeg makes, by their name: small, so that mutations hit what matters.
SOUND: dict[str, list[str]] = {
    "xvid.avi": [*TWELVE, "-c:v", "mpeg4", "-bf", "2"],
    "h264.mp4": [*TWELVE, "-c:v", "libx264"],
    "mpeg1.mpg": [*TWELVE, "-c:v", "mpeg1video"],
    "vp9.webm": [*TWELVE, "-c:v", "libvpx-vp9", "-cpu-used", "8"],
    "h264.mkv": [*TWELVE, "-c:v", "libx264"],
    "h264.ts": [*TWELVE, "-c:v", "libx264"],
    "wmv2.wmv": [*TWELVE, "-c:v", "wmv2"],
    "flv1.flv": [*TWELVE, "-c:v", "flv1"],
    "one frame.avi": [*TWELVE, "-frames:v", "1", "-c:v", "mpeg4"],
    "16x16.avi": [*TWELVE, "-s", "16x16", "-c:v", "mpeg4"],
    "4096x2160.mp4": [*TWELVE, "-s", "4096x2160", "-frames:v", "3", "-c:v", "libx264"],
    "rotated.mp4": ["-display_rotation", "90", *TWELVE, "-c:v", "libx264"],
    "ten bits.mp4": [*SOURCE, "-pix_fmt", "yuv420p10le", "-c:v", "libx264"],
    "grey.avi": [*SOURCE, "-pix_fmt", "gray", "-c:v", "ffv1"],
    "interlaced.mpg": [*TWELVE, "-c:v", "mpeg2video", "-flags", "+ildct+ilme"],
    "rate 1000.mkv": [*TWELVE, "-r", "1000", "-frames:v", "12", "-c:v", "libx264"],
    "wrong suffix.avi": [*TWELVE, "-c:v", "libx264", "-f", "mp4"],
}
BAD: dict[str, list[str]] = {
    "audio only.mp4": [*LAVFI, "sine=duration=1", "-c:a", "aac"],
    "still.avi": [*SOURCE, "-frames:v", "1", "-f", "image2", "-c:v", "png"],
}


def rows(folder: Path, seed: int, trials: int | None) -> Iterator[Row]:
    """Odd videos, mutated videos, and mutated texts and files."""
    made(folder)
    sound = make(folder / "sound")
    yield odd(sound)
    yield videos(sound, trials or 300, np.random.default_rng([seed, 0]))
    for number, (name, (command, file)) in enumerate(TARGETS.items(), 1):
        yield files(name, command, file, trials or 25, np.random.default_rng([seed, number]))


def make(folder: Path) -> Path:
    """Encodes the sound files and the bad ones."""
    folder.mkdir()
    program = imageio_ffmpeg.get_ffmpeg_exe()
    for name, options in {**SOUND, **BAD}.items():
        command = [program, "-nostdin", "-v", "error", "-y", *options, str(folder / name)]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def odd(sound: Path) -> Row:
    """Videos as nobody expects them, and things that are no videos, by every sort of name."""
    root, expected = Path("odd"), set(SOUND)
    for side in ("a", "b"):
        (root / side).mkdir(parents=True)
    for name in (*SOUND, *BAD):
        shutil.copy(sound / name, root / "a" / name)
    for name in names():
        shutil.copy(sound / "xvid.avi", root / "b" / name)
        expected.add(name)
    (root / "b" / "rate 0.avi").write_bytes(without_rate((sound / "xvid.avi").read_bytes()))
    expected.add("rate 0.avi")
    shutil.copy(sound / "xvid.avi", root / "b" / "unreadable.avi")
    (root / "b" / "unreadable.avi").chmod(0)
    (root / "b" / "empty.avi").touch()
    (root / "b" / "zeros.avi").write_bytes(bytes(100_000))
    (root / "b" / "folder.avi").mkdir()
    (root / "b" / "dangling.avi").symlink_to("nowhere")
    row = Row("odd videos", sum(1 for file in root.rglob("*") if file.is_file()) + 2)
    process, found = extraction(row, root)
    if found is not None:
        kept = {Path(path).name for path in found.paths}
        if not expected - {"one frame.avi"} <= kept:
            row.wrong.append(f"sound, and not in the cache: {sorted(expected - kept)}")
        given_up = {Path(path).name for path, _ in found.failures}
        due = {*BAD, "empty.avi", "zeros.avi", "unreadable.avi"} - {"still.avi"}
        if given_up != due and given_up != due | {"still.avi"}:
            row.wrong.append(f"given up: {sorted(given_up)}, due: {sorted(due)}")
        row.note = f"{len(kept)} in the cache, {len(given_up)} given up, each with its reason"
    if "dangling.avi" not in process.text():
        row.wrong.append("a dangling link is not named")
    return row


def without_rate(avi: bytes) -> bytes:
    """The same whose headers declare no time a frame and 0 frames a second."""
    made = bytearray(avi)
    for chunk, place in ((b"avih", 0), (b"strh", 20), (b"strh", 24)):  # µs a frame; scale; rate
        start = made.index(chunk) + 8 + place
        made[start : start + 4] = bytes(4)
    return bytes(made)


def videos(sound: Path, trials: int, random: np.random.Generator) -> Row:
    """So many mutated videos, some at a time with one that is sound."""
    row, kept, given_up = Row("mutated videos"), 0, 0
    sources = [name for name in SOUND if not name.startswith("4096")]
    for start in range(0, trials, BATCH):
        root = Path(f"mutated{start}")
        for side in ("a", "b"):
            (root / side).mkdir(parents=True)
            shutil.copy(sound / "xvid.avi", root / side / "sound.avi")
        for number in range(start, min(start + BATCH, trials)):
            name = sources[int(random.integers(len(sources)))]
            other = (sound / sources[int(random.integers(len(sources)))]).read_bytes()
            content = mutate((sound / name).read_bytes(), random, other)
            (root / "ab"[number % 2] / f"{number} {name}").write_bytes(content)
            row.trials += 1
        _, found = extraction(row, root)
        if found is not None:
            kept, given_up = kept + len(found.paths), given_up + len(found.failures)
            total = sum(1 for file in root.rglob("*.*") if file.is_file())
            if len(found.paths) + len(found.failures) != total:
                row.wrong.append(f"{root}: {total} files, and not all named")
            if sum(Path(path).name == "sound.avi" for path in found.paths) != 2:
                row.wrong.append(f"{root}: a sound video is missing beside mutated ones")
            row.wrong += [f"{it}" for it in found.failures if not it[1] or "\n" in it[1]]
            row.wrong += [p for p in found.verify() if p]
        shutil.rmtree(root)
    row.note = f"{kept} decode, {given_up} given up, each with its reason"
    return row


def extraction(row: Row, root: Path) -> tuple[Process, FeatureCache | None]:
    """Extracts a folder; its cache, unless something is wrong."""
    cache = Path("features", f"{root}.h5")
    options = ["--folds", "2", "--time-limit", "60", "--out", str(cache)]
    command = ["features", "folder", "--videos", str(root), *options]
    process = attnact(command, Path("log"), without_root)
    code, peaks = watched(process)
    row.wrong += told_badly(code, process.text(), (0, 3))
    row.wrong += [f"{root}: {peak // 1024} MiB" for peak in peaks if peak > baseline() + MEMORY]
    return process, FeatureCache(cache) if cache.exists() else None


def watched(process: Process) -> tuple[int, list[int]]:
    """Its exit code, and the most memory (KiB) of each process that worked for it."""
    peaks: dict[int, int] = {}
    end = time.monotonic() + PATIENCE
    while (code := process.wait(0.2)) is None:
        if time.monotonic() > end:
            process.end()
        for pid in members(process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            if "VmHWM:" in status:
                peaks[pid] = int(status.split("VmHWM:")[1].split()[0])
    return code, list(peaks.values())


def baseline() -> int:
    """The memory (KiB) of this process, of which every command here is a fork."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


CHEAP = ["train", "--epochs", "1", "--validation=0", *SMALL[:-2]]
# What is mutated, and who reads it.
TARGETS: dict[str, tuple[list[str], Path]] = {
    "mutated lists": (["features", "folder", "--videos", str(LIST), "--dry-run"], LIST),
    "mutated TOML": ([*CHEAP, "--config", "x.toml"], Path("x.toml")),
    "mutated `config.json`": (["train", "--resume", str(RUN)], RUN / "config.json"),
    "mutated `config.json` given": (
        [*CHEAP, "--config", "given.json"],
        Path("given.json"),
    ),
    "mutated `last.ckpt`": (["train", "--resume", str(RUN)], RUN / "last.ckpt"),
    "mutated `model.safetensors`": (["evaluate", str(RUN)], RUN / "model.safetensors"),
    "mutated index": (["cache", "verify", str(CACHE)], CACHE),
    "mutated shards": (["cache", "verify", str(CACHE)], shard_path(CACHE, 1)),
    "mutated `plan.json`": (
        ["features", "folder", "--videos", str(LIST)],
        shard_path(CACHE, 0).with_name("plan.json"),
    ),
}


def files(
    name: str, command: list[str], file: Path, trials: int, random: np.random.Generator
) -> Row:
    """So many mutations of one file, each given to the command that reads it."""
    row, codes = Row(name, trials), [0] * 4
    if file.suffix == ".toml":
        file.write_text("hidden_size = 8\nepochs = 1\nlearning_rate = 0.001\ndropout = 0.5\n")
    if file.name == "given.json":
        file.write_text(json.dumps({"train": {"epochs": 1, "fps": 30, "seed": 3, "dropout": 0.5}}))
    content = whole = file.read_bytes()
    if file.suffix == ".json":  # as of old: a digest would end every trial at the door
        unsealed = json.loads(content)
        unsealed.pop("digest", None)
        content = json.dumps(unsealed, indent=1).encode()
    for number in range(trials):
        file.write_bytes(mutate(content, random, b"[" * 100_000 if number % 9 == 0 else b""))
        process = attnact(command, Path("log"))
        code, peaks = watched(process)
        if 0 <= code < 4:
            codes[code] += 1
        bad = told_badly(code, process.text(), (0, 1, 2, 3))
        bad += [f"{peak // 1024} MiB" for peak in peaks if peak > baseline() + MEMORY]
        row.wrong += [f"{number}: {it}" for it in bad]
    file.write_bytes(whole)
    row.note = f"exit 0: {codes[0]}, 1: {codes[1]}, 2: {codes[2]}, 3: {codes[3]}"
    return row
