"""Batches cross the borders of videos and lose no frame; readers stop when they are told to."""

import gc
import mmap
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnact.cache.feature_writer import ShardWriter
from attnact.cache.shards import shard_path
from attnact.errors import CacheError, DecoderError
from attnact.extract import batches as module
from attnact.extract.batches import Batch, Job, Readers, batches
from attnact.extract.frames.decoder import Ended, Failed
from attnact.extract.frames.decoding import Event
from attnact.extract.frames.resize import resize
from attnact.extract.frames.video import VideoInfo, read_frames
from attnact.extract.plan import Plan, Settings, plan_path
from attnact.machine.replayed import Replayed

INFO = VideoInfo(320, 240, 25.0, 0, 1)


def frames_of(video: int, first: int, count: int) -> torch.Tensor:
    """Frames that tell which they are in their first pixel."""
    frames = np.zeros((count, 224, 224, 3), np.uint8)
    frames[:, 0, 0, 0], frames[:, 0, 0, 1] = video, np.arange(first, first + count)
    return torch.from_numpy(frames)


SOME = [frames_of(7, first, 3) for first in (0, 3, 6)]


def events_of(videos: list[tuple[list[int], bool]]) -> list[tuple[int, Event]]:
    """For each video its blocks of frames, and whether it ended or failed."""
    events: list[tuple[int, Event]] = []
    for position, (blocks, ended) in enumerate(videos):
        for i, count in enumerate(blocks):
            events.append((position, frames_of(position + 100, sum(blocks[:i]), count)))
        events.append((position, Ended(INFO, "pyav") if ended else Failed(f"{position} broke")))
    return events


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 6), max_size=4), st.booleans()), max_size=5),
    st.integers(1, 8),
)
def test_batches(videos: list[tuple[list[int], bool]], size: int) -> None:
    numbers = [position + 100 for position in range(len(videos))]
    made = list(batches(numbers, events_of(videos), size))
    assert [batch.last for batch in made] == [False] * (len(made) - 1) + [True]
    assert all(batch.filled == size for batch in made[:-1])
    assert made[-1].filled < size
    assert all(batch.frames.shape == (size, 224, 224, 3) for batch in made)
    assert not made[-1].frames[made[-1].filled :].any()
    assert all(b.filled == sum(e for _, e in b.events if isinstance(e, int)) for b in made)

    # Going through the events in order, as the writer does, meets every frame in order.
    seen: dict[int, list[int]] = {number: [] for number in numbers}
    ends: list[tuple[int, Ended | Failed]] = []
    for batch in made:
        start = 0
        for video, event in batch.events:
            if not isinstance(event, int):
                ends.append((video, event))
                continue
            pixels = batch.frames[start : start + event, 0, 0]
            assert (pixels[:, 0] == video).all()
            assert video not in dict(ends)
            seen[video] += pixels[:, 1].tolist()
            start += event
    assert list(seen.values()) == [list(range(sum(blocks))) for blocks, _ in videos]
    expected = [(p + 100, e) for p, e in events_of(videos) if not isinstance(e, torch.Tensor)]
    assert ends == expected


def test_batches_of_nothing() -> None:
    (batch,) = batches([], [], 4)
    assert (batch.filled, batch.events, batch.last) == (0, [], True)
    assert not batch.frames.any()


FRAMES = [9, 1, 6, 12, 5]  # of the clips in turn
STARTS = (0, 2, 3)  # shards of 10, 6 and 17 frames


@pytest.fixture(scope="module")
def root(make_clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for i, frames in enumerate(FRAMES):
        make_clip(folder / f"{i}.avi", frames=frames, seed=i)
    return folder


@pytest.fixture
def job(root: Path, tmp_path: Path) -> Job:
    chosen = Settings("googlenet", "random", "", "squash", "pyav", "zstd")
    paths = tuple(f"{i}.avi" for i in range(len(FRAMES)))
    plan = Plan(chosen, paths, tuple(FRAMES), STARTS, "", "")
    cache = tmp_path / "small.h5"
    plan_path(cache).parent.mkdir()
    return Job(plan, cache, root, size=4, decoders=2, time_limit=60)


def names(job: Job) -> list[str]:
    return sorted(path.name for path in plan_path(job.cache).parent.iterdir())


def close(readers: Readers) -> None:
    """Closes them, and sees their threads come to an end."""
    readers.close()
    for thread in readers._threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("decoders", [1, 2, 5])
def test_every_shard_comes_in_order(job: Job, decoders: int) -> None:
    readers = Readers(Job(**{**vars(job), "decoders": decoders}), [0, 1, 2])
    shards: dict[Path, list[Batch]] = {}
    for writer, batch in readers:
        shards.setdefault(writer.path, []).append(batch)
    assert sorted(shards) == [shard_path(job.cache, i) for i in range(3)]
    for i in range(3):
        made = shards[shard_path(job.cache, i)]
        assert [batch.last for batch in made] == [False] * (len(made) - 1) + [True]
        videos = job.plan.shard(i)
        expected = [frame for v in videos for frame in read_frames(job.root / f"{v}.avi")]
        frames = torch.cat([batch.frames[: batch.filled] for batch in made])
        np.testing.assert_array_equal(frames, resize(np.stack(expected), "squash"))
        ended = [v for batch in made for v, event in batch.events if isinstance(event, Ended)]
        assert ended == list(videos)
    close(readers)
    assert names(job) == []  # nobody closed the writers


def test_finished_shards_and_those_of_others_are_left_alone(job: Job) -> None:
    shard_path(job.cache, 0).touch()
    other = ShardWriter.claim(shard_path(job.cache, 1), "zstd")
    assert other is not None
    readers = Readers(job, [0, 1, 2])
    assert {writer.path for writer, _ in readers} == {shard_path(job.cache, 2)}
    close(readers)
    other.abandon()
    assert names(job) == ["00000.h5"]


def test_writers_that_are_done_are_forgotten(job: Job) -> None:
    readers = Readers(job, [])
    writers = [ShardWriter.claim(shard_path(job.cache, i), "zstd") for i in range(2)]
    for writer in writers:
        assert writer is not None
        readers._keep(writer)
        writer.abandon()
    assert readers._writers == writers[1:]


def test_a_batch_leaves_no_hole_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in memory of its own, which goes with it."""
    made: list[weakref.ref[mmap.mmap]] = []

    def new(*arguments: int) -> mmap.mmap:
        memory = mmap.mmap(*arguments)
        made.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(module, "mmap", SimpleNamespace(mmap=new))
    (batch,) = batches([3], [(0, frames_of(3, 5, 1))], 2)
    (memory,) = (it() for it in made)
    assert memory is not None
    assert bytes(memory[:2]) == bytes([3, 5])
    del batch, memory
    gc.collect()
    assert made[0]() is None


def test_batches_of_another_device_are_made_there() -> None:
    """And nothing is asked of it but room, and copies of what is there."""
    there = torch.device("meta")
    events: list[tuple[int, Event]] = [(0, it.to(there)) for it in SOME]
    made = list(batches([7], events, 4, there))
    assert [batch.frames.device for batch in made] == [there] * 3
    assert [batch.events for batch in made] == [[(7, 3), (7, 1)], [(7, 2), (7, 2)], [(7, 1)]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_hold_the_same_frames(job: Job) -> None:
    """Every reader has the GPU copy and resize, while a graph is recorded and replayed."""
    found = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        readers = Readers(Job(**{**vars(job), "device": device, "decoders": 3}), [0, 1, 2])
        add = Replayed(lambda frames: frames + 1, device) if device.type == "cuda" else None
        shards: dict[Path, list[torch.Tensor]] = {}
        for writer, batch in readers:
            assert batch.frames.device.type == device.type
            frames = batch.frames if add is None else add(batch.frames) - 1
            shards.setdefault(writer.path, []).append(frames.cpu())
        close(readers)
        found.append({path: torch.cat(frames) for path, frames in shards.items()})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][path], found[1][path]) for path in found[0])


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_close_in_the_middle_leaves_nothing(job: Job, taken: int) -> None:
    readers = Readers(job, [0, 1, 2])
    iterator = iter(readers)
    for _ in range(taken):
        next(iterator)
    close(readers)
    assert names(job) == []


def test_what_fails_in_a_reader_is_raised_where_batches_are_read(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise CacheError("the disk is gone")

    monkeypatch.setattr(module.ShardWriter, "claim", fail)
    readers = Readers(job, [0, 1, 2])
    with pytest.raises(CacheError, match="the disk is gone"):
        list(readers)
    close(readers)


def test_no_memory_on_a_gpu_is_told_with_a_way_out(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(module, "_empty_batch", full)
    readers = Readers(job, [0, 1, 2])
    with pytest.raises(DecoderError, match=r"of 2 decoders on cpu: fewer --decoders"):
        list(readers)
    close(readers)
    assert names(job) == []


def test_videos_that_fail_are_told_and_the_rest_is_read(
    job: Job, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for i in (0, 2, 4):
        make_clip(folder / f"{i}.avi", frames=3)
    (folder / "1.avi").write_text("no video")
    readers = Readers(Job(**{**vars(job), "root": folder}), [0, 1, 2])
    told: dict[int, type] = {}
    for _, batch in readers:
        told |= {video: type(event) for video, event in batch.events if type(event) is not int}
    close(readers)
    assert told == {0: Ended, 1: Failed, 2: Ended, 3: Failed, 4: Ended}
