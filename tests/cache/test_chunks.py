"""Chunks read without HDF5, against HDF5; and that several threads do the work."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnact.cache.chunks import AT_ONCE, Chunks, side_by_side

FRAMES, CHUNK = 22, 4  # the last chunk is not full
FILTERS = {
    "none": {},
    "gzip": {"compression": "gzip"},
    "zstd": hdf5plugin.Zstd(),
    "lz4": hdf5plugin.LZ4(),
    "shuffled": {"compression": "gzip", "shuffle": True},
}


@pytest.fixture(scope="module")
def content() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9, (FRAMES, 5, 6)).astype(np.float16)


@pytest.fixture(scope="module", params=FILTERS)
def chunks(request, content, tmp_path_factory) -> Chunks:
    path = tmp_path_factory.mktemp("chunks") / "x.h5"
    with h5py.File(path, "w") as file:
        shape, how = (CHUNK, *content.shape[1:]), FILTERS[request.param]
        file.create_dataset("features", data=content, chunks=shape, maxshape=(None, 5, 6), **how)
    chunks = Chunks(h5py.File(path)["features"])
    assert chunks.direct == (request.param in ("none", "gzip", "zstd"))
    assert chunks.frames == (CHUNK if chunks.direct else CHUNK * AT_ONCE)
    return chunks


@given(st.lists(st.integers(0, FRAMES - 1), min_size=1), st.data())
def test_any_frames_of_a_chunk_into_any_rows(chunks, content, frames, data):
    chunk = frames[0] // chunks.frames
    frames = [frame % chunks.frames for frame in frames]
    frames = [min(frame, FRAMES - 1 - chunk * chunks.frames) for frame in frames]
    rows = data.draw(st.permutations(range(len(frames) + 3)))[: len(frames)]
    out = np.full((len(frames) + 3, *content.shape[1:]), -1, np.float16)
    expected = out.copy()
    expected[rows] = content[chunk * chunks.frames + np.array(frames)]
    chunks.read(chunk, np.array(frames), out, np.array(rows))
    np.testing.assert_array_equal(out, expected)


def test_a_chunk_that_is_not_there(chunks):
    out = np.empty((1, 5, 6), np.float16)
    with pytest.raises(KeyError if chunks.direct else ValueError):
        chunks.read(9, np.array([0]), out, np.array([0]))


@pytest.mark.parametrize("name", ["gzip", "zstd"])
@pytest.mark.parametrize("harm", ["cut", "zeroed"])
def test_a_chunk_that_is_damaged(tmp_path: Path, content, name, harm):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("features", data=content, chunks=(CHUNK, 5, 6), **FILTERS[name])
        place = made.id.get_chunk_info(5)
    chunks = Chunks(h5py.File(path)["features"])
    if harm == "cut":
        path.write_bytes(path.read_bytes()[: place.byte_offset + place.size // 2])
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: place.byte_offset].ljust(len(whole), b"\0"))
    with pytest.raises(OSError, match=r"does not decompress|bytes of"):
        chunks.read(5, np.arange(CHUNK), np.empty((CHUNK, 5, 6), np.float16), np.arange(CHUNK))


def test_all_work_is_done_by_several_threads_at_once():
    """Two pieces that wait for each other."""
    meeting, done = threading.Barrier(2, timeout=60), []

    def meet() -> None:
        meeting.wait()
        done.append(threading.get_ident())

    with ThreadPoolExecutor(2) as pool:
        side_by_side(pool, 2, [meet, meet])
        assert len(set(done)) == 2
        side_by_side(pool, 2, [lambda i=i: done.append(i) for i in range(50)])
        side_by_side(pool, 2, [])
    assert sorted(done[2:]) == list(range(50))


def test_an_error_is_told_when_all_threads_have_stopped():
    began, done = threading.Event(), []

    def slow() -> None:
        began.set()
        threading.Event().wait(0.05)
        done.append(1)

    def fail() -> None:
        began.wait(60)
        raise OSError("broken")

    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(OSError, match="broken"):
            side_by_side(pool, 2, [slow, fail])
        assert done == [1]
