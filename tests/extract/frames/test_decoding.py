"""Whatever a file does to its decoder, it costs that file and no other."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnact.errors import DecoderError, VideoError
from attnact.extract.frames import decoder, decoding
from attnact.extract.frames.decoder import BLOCK, Ended, Failed
from attnact.extract.frames.decoding import Event, decode, probe_all
from attnact.extract.frames.resize import resize, resize_tensor
from attnact.extract.frames.shared import Places
from attnact.extract.frames.video import probe, read_frames
from attnact.machine.children import Child, start_child
from tests.made_files import wait_for

FRAMES = {"one.avi": 1, "block.avi": BLOCK, "more.avi": BLOCK + 1, "long.avi": 5 * BLOCK}
LIMIT, PATIENCE = 5.0, 120.0  # seconds, where a file hangs and where none does


@pytest.fixture(scope="module")
def clips(make_clip, ffmpeg, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for seed, (name, frames) in enumerate(FRAMES.items()):
        make_clip(folder / name, frames=frames, seed=seed)
    make_clip(folder / "b_frames.avi", "-c:v", "mpeg4", "-bf", "2")
    (folder / "text.avi").write_text("no video")
    (folder / "cut.avi").write_bytes((folder / "long.avi").read_bytes()[:40_000])
    return folder


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A file that hangs whoever opens it."""
    path = tmp_path / "hangs.avi"
    os.mkfifo(path)
    return path


@pytest.fixture
def running(monkeypatch) -> Callable[[], list[Child]]:
    """The decoders that run now."""
    started = []

    def start(*arguments: Any, **files: Any) -> Any:
        child = start_child(*arguments, **files)
        started.append(child[0])
        return child

    monkeypatch.setattr(decoding, "start_child", start)
    return lambda: [process for process in started if process.poll() is None]


def gather(events: Iterator[tuple[int, Event]]) -> list[tuple[list[np.ndarray], Ended | Failed]]:
    """The frames of each file and its end; the files come one after the other."""
    files: list[tuple[list[np.ndarray], Ended | Failed]] = []
    frames: list[np.ndarray] = []
    for position, event in events:
        assert position == len(files)
        if isinstance(event, torch.Tensor):
            assert 0 < len(event) <= BLOCK
            frames += list(event.cpu().numpy())
        else:
            files.append((frames, event))
            frames = []
    assert not frames
    return files


def hold(path: Path, found: tuple[list[np.ndarray], Any], how: str = "squash") -> None:
    """All frames of the file, resized, and then its end."""
    np.testing.assert_array_equal(found[0], resize(np.stack(list(read_frames(path))), how))
    assert found[1] == Ended(probe(path), "pyav")


@pytest.mark.parametrize("how", ["squash", "crop"])
def test_frames_are_those_of_the_files_resized(clips, how):
    paths = [clips / name for name in FRAMES]
    found = gather(decode(paths, "pyav", how, PATIENCE))
    assert [len(frames) for frames, _ in found] == list(FRAMES.values())
    for path, file in zip(paths, found, strict=True):
        hold(path, file, how)


def test_frames_for_another_device_are_resized_there(clips, monkeypatch):
    """They arrive as large as the file has them."""
    arrived = []

    def watched(frames: torch.Tensor, how: str) -> torch.Tensor:
        arrived.append((frames.device.type, tuple(frames.shape)))
        return resize_tensor(frames, how)

    monkeypatch.setattr(decoding, "resize_tensor", watched)
    path = clips / "more.avi"
    *blocks, (_, ended) = decode([path], "pyav", "squash", PATIENCE, torch.device("meta"))
    info = probe(path)
    sizes = [len(event) for _, event in blocks]
    assert arrived == [("meta", (size, info.height, info.width, 3)) for size in sizes]
    assert sum(sizes) == FRAMES["more.avi"]
    assert {event.shape[1:] for _, event in blocks} == {(224, 224, 3)}
    assert ended == Ended(info, "pyav")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_frames_on_a_gpu_are_the_same(clips):
    paths = [clips / name for name in FRAMES]
    found = gather(decode(paths, "pyav", "crop", PATIENCE, torch.device("cuda")))
    for path, file in zip(paths, found, strict=True):
        hold(path, file, "crop")


def test_decord_is_used_where_it_is_right(clips):
    pytest.importorskip("decord")
    paths = [clips / "more.avi", clips / "b_frames.avi"]
    found = gather(decode(paths, "decord", "squash", PATIENCE))
    assert [ended.decoder for _, ended in found] == ["decord", "pyav"]
    for path, (frames, _) in zip(paths, found, strict=True):
        expected = resize(np.stack(list(read_frames(path))), "squash")
        assert len(frames) == len(expected)
        assert np.abs(np.int16(frames) - np.int16(expected)).mean((1, 2, 3)).max() < 5


def test_no_files():
    assert list(decode([], "pyav", "squash", PATIENCE)) == []
    assert list(probe_all([], PATIENCE)) == []


def test_a_video_error_fails_its_file_alone(clips):
    names = ["text.avi", "one.avi", "cut.avi", "none.avi", "more.avi", "text.avi"]
    found = gather(decode([clips / name for name in names], "pyav", "squash", PATIENCE))
    for name, (frames, end) in zip(names, found, strict=True):
        if name in FRAMES:
            hold(clips / name, (frames, end))
            continue
        with pytest.raises(VideoError) as caught:
            list(read_frames(clips / name))
        assert end == Failed(str(caught.value))


def test_a_file_that_hangs_fails_and_the_next_is_read(clips, fifo, running):
    paths = [clips / "one.avi", fifo, clips / "more.avi"]
    found = gather(decode(paths, "pyav", "squash", LIMIT))
    hold(paths[0], found[0])
    assert found[1] == ([], Failed("no frame in 5 s (the time limit)"))
    hold(paths[2], found[2])
    assert running() == []


def test_a_reader_that_is_slow_is_no_file_that_hangs(clips):
    events = decode([clips / "long.avi", clips / "one.avi"], "pyav", "squash", LIMIT)
    first = next(events)
    time.sleep(LIMIT + 1)  # the decoder waits for us, not we for it
    found = gather(iter([first, *events]))
    hold(clips / "long.avi", found[0])
    hold(clips / "one.avi", found[1])


def kill_whoever_opens(fifo: Path, running: Callable[[], list[Child]]) -> None:
    for _ in range(2):  # for whoever is killed is tried again
        with fifo.open("wb"):  # returns when the decoder opens the other end
            (decoder,) = running()
            decoder.kill()
            decoder.wait()  # of all its threads, or the next would be taken to have opened it


def test_a_file_that_crashes_the_decoder_fails_and_the_next_is_read(clips, fifo, running):
    paths = [clips / "one.avi", fifo, clips / "more.avi"]
    killer = threading.Thread(target=kill_whoever_opens, args=(fifo, running))
    killer.start()
    found = gather(decode(paths, "pyav", "squash", PATIENCE))
    killer.join()
    hold(paths[0], found[0])
    assert found[1] == ([], Failed("the decoder crashed (exit code -9)"))
    hold(paths[2], found[2])


@pytest.mark.parametrize("read", [1, 2])
def test_a_decoder_killed_between_frames_leaves_its_file_whole(clips, read, running):
    paths = [clips / "long.avi", clips / "more.avi"]
    events = decode(paths, "pyav", "squash", PATIENCE)
    before = [next(events) for _ in range(read)]
    (decoder,) = running()
    decoder.kill()
    found = gather(iter([*before, *events]))
    for path, file in zip(paths, found, strict=True):
        hold(path, file)


def test_a_decoder_may_be_killed_once_a_file(clips, running):
    path, seen, hurt = clips / "long.avi", [], set()
    for position, event in decode([path] * 2, "pyav", "squash", PATIENCE):
        seen.append((position, event))
        if position not in hurt:
            hurt.add(position)
            (decoder,) = running()
            decoder.kill()
            decoder.wait()
    for file in gather(iter(seen)):
        hold(path, file)
    assert len(hurt) == 2


def test_a_decoder_that_crashes_by_itself_fails_its_file(clips, running):
    paths = [clips / "long.avi", clips / "more.avi"]
    events = decode(paths, "pyav", "squash", PATIENCE)
    before = next(events)
    (decoder,) = running()
    os.kill(decoder.pid, signal.SIGSEGV)
    found = gather(iter([before, *events]))
    assert len(found[0][0]) < FRAMES["long.avi"]
    assert found[0][1] == Failed("the decoder crashed (exit code -11)")
    hold(paths[1], found[1])


@pytest.mark.parametrize("read", [0, 1, 3])
def test_closing_early_leaves_no_process(clips, read, running):
    events = decode([clips / "long.avi"] * 2, "pyav", "squash", PATIENCE)
    for _ in range(read):
        next(events)
    assert len(running()) == min(read, 1)
    events.close()
    assert running() == []


def test_probe_all(clips, fifo):
    paths = [clips / "one.avi", clips / "text.avi", fifo, clips / "none.avi", clips / "more.avi"]
    found = list(probe_all(paths, LIMIT))
    assert [found[0], found[4]] == [probe(paths[0]), probe(paths[4])]
    assert found[1] == Failed("text.avi: not a video that FFmpeg knows")
    assert found[2] == Failed("no frame in 5 s (the time limit)")
    assert found[3] == Failed("none.avi: cannot be opened (No such file or directory)")


@pytest.mark.parametrize(("serve", "code"), [(os.abort, -6), (sys.exit, 0)], ids=["crash", "exit"])
def test_where_no_decoder_starts_no_video_fails(clips, monkeypatch, serve, code, running):
    """Each dies before it has begun with a file; a second one is tried."""
    monkeypatch.setattr(decoding, "serve", partial(die, serve))
    why = re.escape(f"can be started (it ends with exit code {code}); make room")
    with pytest.raises(DecoderError, match=why):
        list(decode([clips / "one.avi"], "pyav", "squash", PATIENCE))
    assert running() == []


def die(how: Callable[[], None], *_: object) -> None:
    how()


def test_where_processes_cannot_be_made_no_video_fails(clips, monkeypatch):
    def full(*_: object, **files: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(decoding, "start_child", full)
    with pytest.raises(DecoderError, match=r"can be started \(Resource temporarily unavailable\)"):
        list(probe_all([clips / "one.avi"], PATIENCE))


def test_a_decoder_that_starts_at_the_second_attempt(clips, monkeypatch):
    failed = []

    def full_once(*arguments: Any, **files: Any) -> Any:
        if not failed:
            failed.append(1)
            raise OSError(12, "Cannot allocate memory")
        return start_child(*arguments, **files)

    monkeypatch.setattr(decoding, "start_child", full_once)
    (found,) = gather(decode([clips / "one.avi"], "pyav", "squash", PATIENCE))
    hold(clips / "one.avi", found)


PARENT = """
import sys, time
from pathlib import Path
from attnact.extract.frames import decoding
from attnact.extract.frames.decoding import decode

def start(*arguments, **files):
    child = start_child(*arguments, **files)
    print(child[0].pid, flush=True)
    return child

start_child, decoding.start_child = decoding.start_child, start
events = decode([Path(sys.argv[1]), Path(sys.argv[2])], "pyav", "squash", 600)
next(events), next(events)
time.sleep(600)
"""


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ctrl_c_stops_no_decoder_while_it_starts(clips, capfd, running):
    """A terminal sends it to every process; only ours may answer."""
    events = decode([clips / "more.avi"], "pyav", "squash", PATIENCE)
    reader = threading.Thread(target=lambda: found.extend(gather(events)))
    found: list[Any] = []
    reader.start()
    while not (decoders := running()):
        time.sleep(0.001)
    os.kill(decoders[0].pid, signal.SIGINT)
    reader.join()
    hold(clips / "more.avi", found[0])
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a decoder that hangs lives on")
def test_a_hanging_decoder_dies_with_its_parent(clips, fifo):
    command = [sys.executable, "-c", PARENT, str(clips / "one.avi"), str(fifo)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as parent:
        decoder = int(parent.stdout.readline())
        with fifo.open("wb"):  # now it hangs, in the middle of FFmpeg
            assert is_running(decoder)
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            wait_for(lambda: not is_running(decoder))


@pytest.mark.parametrize("piece", [("probe",), ("decode", "pyav")])
def test_a_decoder_that_nobody_listens_to_ends_without_a_word(clips, monkeypatch, piece):
    monkeypatch.setattr(decoder, "end_with_parent", lambda number: None)
    ours, theirs = Pipe()
    ours.close()
    kind, *how = piece
    for path in (clips / "one.avi", clips / "no such file.avi"):
        decoder.serve(theirs, Places().files, [(kind, path, *how)])


LIMITED = """
import resource, sys
from pathlib import Path
from attnact.errors import DecoderError
from attnact.extract.frames.decoding import Ended, decode
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most if sys.argv[2] == "soft" else 4096))
try:
    events = [event for _, event in decode([Path(sys.argv[1])], "pyav", "squash", 60)]
    print(isinstance(events[-1], Ended))
except DecoderError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_limit_on_files_is_no_fault_of_a_video(clips, kind: str) -> None:
    """The frames of a decoder lie in memory that Linux counts as a file."""
    command = [sys.executable, "-c", LIMITED, clips / "long.avi", kind]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if kind == "soft":  # which a process may lift
        assert told == "True"
    else:
        assert told.startswith("no memory for the frames of a decoder (File too large)")
        assert "raise the limit of `ulimit -f`" in told
