"""Features on the device, in memory and on disk: the same batches, of the frames they should be."""

import gc
import re
import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from attnact.cache.compact import Cubes
from attnact.cache.features import CUBE, FeatureCache
from attnact.cache.shards import shard_path
from attnact.errors import CacheError, RunError
from attnact.model.windows import Windows
from attnact.train.feed import store as module
from attnact.train.feed.clips import Clips, cut_clips
from attnact.train.feed.store import (
    Batch,
    batches,
    bytes_of,
    describe,
    open_store,
    untaught,
    videos_in,
)
from attnact.vocabulary import Split

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif("not torch.cuda.is_available()", reason="needs a GPU")
    ),
]


def cut(cache: FeatureCache, videos: Any, fps: float = 30) -> Clips:
    return cut_clips(cache, np.array(videos), fps=fps, stride=1, form="paper")


def dense(batch: Batch) -> torch.Tensor:
    """The clips, (B, T, L, C), in memory of their own."""
    X = batch.X
    return (X.gather(X.frames) if isinstance(X, Windows) else X).clone()


def kept(coming: Iterable[Batch]) -> list[Batch]:
    """All batches, each of which may take the place of the last one."""
    return [replace(batch, X=dense(batch)) for batch in coming]


def test_after_a_failure_nothing_of_it_stays(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who fails for want of memory tries again with less; it must be free at once."""
    store, clips = open_store(cache, np.arange(3), "disk", CPU), cut(cache, [0, 1, 2])
    rooms: list[Any] = []
    gathered = [store.gather, store.gather]
    enough = module._enough

    def gather(*args: Any) -> Any:
        if not gathered:
            raise MemoryError
        return gathered.pop()(*args)

    def seen(room: torch.Tensor, count: int) -> torch.Tensor:
        made = enough(room, count)
        rooms.append(weakref.ref(made))
        return made

    monkeypatch.setattr(store, "gather", gather)
    monkeypatch.setattr(module, "_enough", seen)
    gc.disable()
    try:
        with pytest.raises(MemoryError):
            list(batches(store, clips, np.arange(len(clips)), 2))
        assert rooms
        assert not any(room() is not None for room in rooms)
    finally:
        gc.enable()


@pytest.mark.parametrize("place", ["device", "host", "disk"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fps", [30, 15, 6])
def test_batches(cache: FeatureCache, place: Any, device: str, fps: float) -> None:
    """Against the index's virtual data set, read frame by frame; videos in no order, one twice."""
    clips = cut(cache, [7, 0, 11, 3, 0], fps)
    order = np.random.default_rng(0).permutation(len(clips))
    store = open_store(cache, np.array([11, 0, 3, 7]), place, torch.device(device))
    found = kept(batches(store, clips, order, 4))
    assert [len(batch.video) for batch in found[:-1]] == [4] * (len(found) - 1)
    assert np.concatenate([batch.video for batch in found]).tolist() == clips.video[order].tolist()
    rows = [(batch.X[i], batch.mask[i]) for batch in found for i in range(len(batch.video))]
    with h5py.File(cache.path) as file:
        features = np.moveaxis(file["features"][()], 1, -1).reshape(-1, 49, 1024)
    for position, (X, mask) in zip(order, rows, strict=True):
        clip = clips[np.array([position])]
        assert X.dtype == torch.float32
        assert X.device.type == device
        assert np.array_equal(X.cpu().numpy(), features[clip.positions()[0]].astype(np.float32))
        assert np.array_equal(mask.cpu().numpy(), clip.mask()[0])


@pytest.mark.parametrize("place", ["device", "host", "disk"])
def test_batches_of_a_float32_cache_are_its_arrays(make_cache, tmp_path, place: Any) -> None:
    def cubes(video: int, frames: int) -> Cubes:
        return np.random.default_rng(video).normal(size=(frames, *CUBE)).astype(np.float32)

    cache = make_cache(tmp_path / "x.h5", videos=3, frames=lambda _: 31, cubes=cubes)
    store = open_store(cache, np.arange(3), place, CPU)
    found = kept(batches(store, cut(cache, [2, 0, 1]), np.array([3, 0, 5]), 2))
    X = torch.cat([batch.X for batch in found]).numpy()
    clips = [(0, 1), (2, 0), (1, 1)]  # the video and the first frame
    expected = [cubes(video, 31).reshape(31, 49, 1024)[start:][:30] for video, start in clips]
    assert X.tobytes() == np.stack(expected).tobytes()
    assert bytes_of(cache, np.arange(2)) == 62 * 7 * 7 * 1024 * 4


@pytest.mark.parametrize("place", ["device", "host", "disk"])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_batches_of_a_uint8_cache(make_cache, tmp_path, place: Any, compression: str) -> None:
    """Against the features as the format's page computes them; they stay uint8 until then."""
    cache = make_cache(tmp_path / "x.h5", videos=4, dtype="uint8", compression=compression)
    clips = cut(cache, [3, 0, 2], fps=15)
    store = open_store(cache, np.array([0, 2, 3]), place, CPU)
    stored = store.gather(clips.positions().ravel())
    assert stored.cubes.dtype == torch.uint8
    order = np.random.default_rng(0).permutation(len(clips))
    X = torch.cat([batch.X for batch in kept(batches(store, clips, order, 4))])
    with h5py.File(cache.path) as file:
        q, s = file["features"][()], file["scales"][()]
    features = np.moveaxis((q / 255) ** 2 * s[:, None], 1, -1).reshape(-1, 49, 1024)
    np.testing.assert_allclose(X.numpy(), features[clips[order].positions()], rtol=1e-6)
    assert X.is_contiguous()
    assert bytes_of(cache, np.arange(2)) == 63 * 7 * 7 * (1024 + 4)


@pytest.mark.parametrize("place", ["host", "disk"])
def test_batches_that_share_frames(cache: FeatureCache, place: Any) -> None:
    clips = cut(cache, [7, 0, 0, 11, 3], 15)
    store = open_store(cache, np.array([11, 0, 3, 7]), place, CPU)
    apart = torch.cat([b.X for b in kept(batches(store, clips, np.arange(len(clips)), 5))])
    shared = torch.cat([b.X for b in kept(batches(store, clips, None, 5))])
    assert torch.equal(shared, apart)


@pytest.mark.parametrize("place", ["host", "disk"])
def test_batches_left_early(cache: FeatureCache, place: Any) -> None:
    """The batch that is being gathered is waited for, and the store goes on to serve."""
    clips = cut(cache, [0, 1, 2])
    store = open_store(cache, np.arange(3), place, CPU)
    coming = batches(store, clips, np.arange(len(clips)), 2)
    first = dense(next(coming))
    coming.close()
    again = next(batches(store, clips, np.arange(len(clips)), 2))
    assert torch.equal(first, dense(again))


@pytest.mark.parametrize("place", ["host", "disk"])
def test_frames_are_listed_batch_by_batch(
    cache: FeatureCache, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of all at once would be gigabytes of numbers for a large data set."""
    listed = []
    real = Clips.positions
    monkeypatch.setattr(Clips, "positions", lambda clips: listed.append(clips) or real(clips))
    clips = cut(cache, range(12))
    coming = batches(open_store(cache, np.arange(12), place, CPU), clips, np.arange(len(clips)), 1)
    next(coming)
    coming.close()
    assert len(clips) > 2 >= len(listed)


def test_no_clips(cache: FeatureCache) -> None:
    store = open_store(cache, np.arange(3), "host", CPU)
    assert list(batches(store, cut(cache, [0]), np.array([], int), 2)) == []


def test_an_error_while_gathering_ahead_is_told(make_cache, tmp_path) -> None:
    cache = make_cache(tmp_path / "x.h5")
    store = open_store(cache, np.arange(12), "disk", CPU)
    shard = shard_path(cache.path, 2)
    shard.write_bytes(shard.read_bytes()[:100])
    coming = batches(store, cut(cache, [0, 11]), np.array([0, 4]), 1)
    assert next(coming).video.tolist() == [0]
    with pytest.raises(CacheError, match=r"00002\.h5: not a whole HDF5 file"):
        next(coming)


@pytest.mark.parametrize(("free", "place"), [(1 << 40, "host memory"), (1000, "disk"), (0, "disk")])
def test_auto(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch, free: int, place: str) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: free)
    assert open_store(cache, np.arange(12), "auto", CPU).place == place


@pytest.mark.parametrize(
    ("on_device", "in_host", "place"), [(90, 90, "device"), (50, 90, "host"), (50, 50, "disk")]
)
def test_auto_takes_the_first_that_fits_with_room(
    monkeypatch: pytest.MonkeyPatch, on_device: int, in_host: int, place: str
) -> None:
    """60 bytes fit into 90, of which 70 % are ours, and not into 50."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (on_device, 1 << 40))
    monkeypatch.setattr(module, "free_memory", lambda: in_host)
    assert module._choose(60, torch.device("cuda")) == place


def test_auto_needs_room_for_the_videos_of_the_folds_alone(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = int(cache.frame_counts[:2].sum()) * (49 * 2 + 4) * 1024  # with the means
    monkeypatch.setattr(module, "free_memory", lambda: int(needed / module.ROOM) + 10)
    assert open_store(cache, np.arange(2), "auto", CPU).place == "host memory"
    assert open_store(cache, np.arange(3), "auto", CPU).place == "disk"


@pytest.mark.parametrize("multi_label", [False, True])
def test_classes_that_only_the_test_videos_show(make_cache, tmp_path, multi_label) -> None:
    """Of videos of the classes 0, 1, 2, 0, ..., of which some of class 0 are of class 1 as well."""
    T, F, U = Split.TEST, Split.TRAIN, Split.UNUSED
    folds = {
        "all": np.array([F, F, F, T, T, T], np.int8),
        "some": np.array([F, T, T, F, U, U], np.int8),
        "unseen": np.array([F, U, U, F, U, T], np.int8),
    }
    labels = np.eye(3, dtype=np.int64)[np.arange(6) % 3]
    labels[3, 1] = 1
    labels = labels if multi_label else labels.argmax(1)
    path = tmp_path / "six.h5"
    cache = make_cache(path, videos=6, multi_label=multi_label, folds=folds, labels=labels)
    _, jump, run = cache.classes
    assert untaught(cache, "all") == []
    assert untaught(cache, "some") == ([run] if multi_label else [jump, run])
    assert untaught(cache, "unseen") == [run]


def test_videos_in(make_cache, tmp_path) -> None:
    cache = make_cache(tmp_path / "x.h5", videos=15)
    assert videos_in(cache, ["1"]).tolist() == list(range(15))
    assert videos_in(cache, ["wide"]).tolist() == list(range(3, 15))  # its first group is unused
    assert videos_in(cache, ["wide", "2"]).tolist() == list(range(15))
    with pytest.raises(RunError, match="no fold '9'; it has 1, 2, 3, 4, 5, wide"):
        videos_in(cache, ["1", "9"])


def test_describe(cache: FeatureCache) -> None:
    two, what = np.arange(2), "63 frames, 0.01 GiB as float16, features on "
    told = describe(cache, two, open_store(cache, two, "disk", CPU))
    assert told == what + "disk, which one core alone can decompress"  # it is of lz4
    told = describe(cache, two, open_store(cache, two, "host", CPU))
    assert re.fullmatch(re.escape(what) + r"host memory \([\d,]+\.\d GiB left\)", told)
    assert bytes_of(cache, np.arange(2)) == 63 * 7 * 7 * 1024 * 2
