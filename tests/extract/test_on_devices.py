"""One extraction on several devices: the same bytes, and what becomes of a process that fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from attnact.extract.on_devices import parse_devices
from tests.made_files import contents, wait_for
from tests.torture.processes import members

SHARDS = 4


@pytest.fixture(scope="module")
def videos(make_clip, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("devices")
    for seed in range(SHARDS):
        path = folder / "videos" / ("dive", "run")[seed % 2] / f"{seed}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_clip(path, frames=30, seed=seed)
    return folder


def start(videos: Path, out: Path, *options: str, held: Path | str = "") -> subprocess.Popen:
    """In a session of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.made_devices",
        "features",
        "folder",
        "--videos",
        "videos",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SOURCE_DATE_EPOCH": "1577836800",
        "HELD": str(held),
    }
    return subprocess.Popen(
        [*command, "--folds", "2", "--out", str(out), *options],
        cwd=videos,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]


@pytest.fixture(scope="module")
def alone(videos: Path) -> dict[str, bytes]:
    """The files of a cache that one process made."""
    process = start(videos, videos / "alone" / "small.h5", "--device", "cpu")
    said = process.communicate()[1]
    assert process.returncode == 0, said
    return contents(videos / "alone")


def test_two_processes_make_what_one_makes(videos, alone, tmp_path):
    process = start(videos, tmp_path / "small.h5", "--devices", "cpu,cpu")
    said = process.communicate()[1]
    assert process.returncode == 0, said
    assert "frames/s on each of 2 devices" in said
    assert contents(tmp_path) == alone


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_dies_is_told_and_the_rest_goes_on(videos, alone, tmp_path):
    cache, held = tmp_path / "small.h5", tmp_path / "held"
    process = start(videos, cache, "--devices", "cpu,cpu", held=held)
    os.kill(at_work(held, cache), signal.SIGKILL)
    said = process.communicate()[1]
    assert process.returncode == 1, said
    assert "error: cpu: its process died (exit code -9); what the others could make is" in said
    assert "Traceback" not in said
    again = start(videos, cache, "--devices", "cpu,cpu")
    assert (again.communicate()[1] is not None, again.returncode) == (True, 0)
    held.unlink()
    made = {
        name: data for name, data in contents(cache.parent).items() if not name.endswith(".lock")
    }
    assert made == alone


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGKILL", -9)])
def test_however_it_ends_no_process_stays_behind(videos, number, code, tmp_path):
    """And a process that is told to end leaves no trace of a shard that is not whole."""
    cache, held = tmp_path / "small.h5", tmp_path / "held"
    process = start(videos, cache, "--devices", "cpu,cpu", held=held)
    at_work(held, cache)
    os.kill(process.pid, getattr(signal, number))  # to it alone, unlike Ctrl-C in a terminal
    assert (process.communicate()[1] is not None, process.returncode) == (True, code)
    wait_for(lambda: not members(process.pid))
    held.unlink()
    left = {path.suffix for path in cache.parent.rglob("*.*") if path.is_file()}
    assert number == "SIGKILL" or left <= {".h5", ".json", ".safetensors"}


def at_work(held: Path, cache: Path) -> int:
    """The other process, which has shards in hand, once all there is to do is done or in hand."""
    wait_for(held.exists)
    helper = int(held.read_text())
    before: object = None

    def settled() -> bool:
        nonlocal before
        now = sorted(cache.parent.rglob("*.h5*")), children(helper)
        same, before = now == before, now
        time.sleep(0.5)  # a decoder that is only half started would complain
        return same

    wait_for(settled)
    return helper


def test_which_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse_devices("all") == ["cuda:0", "cuda:1"]
    assert parse_devices("cuda:1,cpu") == ["cuda:1", "cpu"]
    for text, message in (
        ("cuda:2", "no cuda:2 here, where torch sees 2"),
        ("gpu", "'gpu' is no device"),
        ("", "'' is no device"),
        ("meta", "torch cannot work on meta here"),
        ("cpu,hpu", "torch cannot work on hpu here"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_devices(text)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="no GPU here for --devices all"):
        parse_devices("all")
