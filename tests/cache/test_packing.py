"""Chunks against HDF5's own, checksums against zlib's; and that the threads are held in check."""

import itertools
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnact.cache import packing
from attnact.cache.packing import AT_ONCE, FRAMES, UNDER_WAY, Packer, join, pack
from attnact.errors import CacheError
from attnact.machine.resources import cores
from tests.made_shards import cubes_of

FILTERS = {"none": {}, "gzip": {"compression": "gzip"}, "zstd": hdf5plugin.Zstd()}


def packer(tmp_path, dtype="float16", compression="none") -> Packer:
    return Packer(tmp_path / "x.h5", dtype, compression)


@pytest.mark.parametrize("compression", FILTERS)
@pytest.mark.parametrize("frames", [1, FRAMES])
def test_hdf5_reads_a_chunk_as_if_it_were_its_own(tmp_path, compression, frames):
    cubes = cubes_of(0, frames)
    pieces = [cubes[:1], cubes[1:]] if frames > 1 else [cubes]
    (packed,) = pack(tmp_path, np.dtype("float16"), compression, 0, pieces)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        shape = (FRAMES, 1024, 7, 7)
        made = file.create_dataset("x", shape, "f2", chunks=shape, **FILTERS[compression])
        made.id.write_direct_chunk((0, 0, 0, 0), packed.content)
        np.testing.assert_array_equal(made[:frames], np.moveaxis(cubes, -1, 1))
        assert not made[frames:].any()
    checksums = [(len(it), zlib.crc32(np.moveaxis(it, -1, 1).tobytes())) for it in pieces]
    assert packed.checksums == checksums


def test_hdf5_compresses_lz4_itself(tmp_path):
    (packed,) = pack(tmp_path, np.dtype("float16"), "lz4", 8, [cubes_of(0, 2)])
    assert packed.content is None
    assert packed.first == 8
    np.testing.assert_array_equal(packed.cubes, np.moveaxis(cubes_of(0, 2), -1, 1))


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("batches", [(8,), (3, 2, 3), (1, 6, 1)])
def test_a_chunk_is_the_same_however_its_cubes_lie_in_memory(tmp_path, dtype, batches):
    made = []
    for turn in (False, True):
        writer, chunks = packer(tmp_path, dtype), []
        for video, frames in enumerate(batches):
            cubes = cubes_of(video, frames)
            if turn:
                cubes = np.moveaxis(np.moveaxis(cubes, -1, 1).copy(), 1, -1)
            chunks += list(writer.add(cubes))
        chunks += list(writer.finish())
        made.append([(it.first, bytes(it.content), it.checksums) for it in chunks])
    assert made[0] == made[1]


@given(st.binary(), st.binary())
def test_checksums_are_joined_as_zlib_goes_on(one, other):
    joined = join(zlib.crc32(one), zlib.crc32(other), len(other))
    assert joined == zlib.crc32(one + other)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
@pytest.mark.parametrize("dtype", ["float", "uint8"])
def test_what_is_no_number_is_refused(tmp_path, kind, value, dtype):
    cubes = cubes_of(0, 3).astype(kind)
    kept = np.dtype(kind if dtype == "float" else dtype)
    limits = np.finfo(kind)
    cubes[0, 0, 0, :3] = [limits.max, limits.smallest_subnormal, 0]
    pack(tmp_path, kept, "none", 0, [cubes])
    cubes[2, 6, 6, 1023] = value
    with pytest.raises(CacheError, match=f"features overflow {np.dtype(kind)}"):
        pack(tmp_path, kept, "none", 0, [cubes])


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_only_uint8_minds_what_is_below_zero(tmp_path, kind):
    cubes = cubes_of(0, 1).astype(kind)
    cubes[0, 0, 0, 0] = -0.0
    pack(tmp_path, np.dtype("uint8"), "none", 0, [cubes])
    cubes[0, 0, 0, 0] = -np.finfo(kind).smallest_subnormal
    pack(tmp_path, np.dtype(kind), "none", 0, [cubes])
    with pytest.raises(CacheError, match="features below zero"):
        pack(tmp_path, np.dtype("uint8"), "none", 0, [cubes])


@settings(max_examples=15)
@given(st.lists(st.integers(0, 13) | st.integers(30, 40), max_size=8))
def test_chunks_come_in_their_order_whatever_the_pieces(tmp_path_factory, pieces):
    cubes = cubes_of(0, sum(pieces))
    some, made = packer(tmp_path_factory.mktemp("x")), []
    for end, count in zip(np.cumsum(pieces), pieces, strict=True):
        made += list(some.add(cubes[end - count : end]))
    assert some.frames == sum(pieces)
    made += list(some.finish())
    assert [it.first for it in made] == list(range(0, sum(pieces), FRAMES))
    found = [cube for it in made for cube in it.content[: it.frames]]
    assert len(found) == len(cubes)
    for cube, one in zip(cubes, found, strict=True):
        np.testing.assert_array_equal(one, np.moveaxis(cube, -1, 0))


@pytest.fixture
def gate(monkeypatch):
    """No chunk is packed before it opens; how many began, and how many ended."""
    opened, began, ended = threading.Event(), [], []
    real = packing.pack

    def waiting(*args):
        began.append(args)
        opened.wait(60)
        packed = real(*args)
        ended.append(args)
        return packed

    monkeypatch.setattr(packing, "pack", waiting)
    opened.counts = lambda: (len(began), len(ended))
    yield opened
    opened.set()


def test_little_is_under_way(tmp_path, gate):
    some = packer(tmp_path)
    assert not list(some.add(cubes_of(0, UNDER_WAY * AT_ONCE * FRAMES)))
    threading.Timer(0.1, gate.set).start()
    (first, *_) = some.add(cubes_of(1, FRAMES))  # waits until the gate opens
    assert first.first == 0
    some.stop()


def test_a_batch_of_several_videos_waits_for_nothing(tmp_path, gate):
    """Of a shard whose last batch is packed: the network would wait, too."""
    some, cubes = packer(tmp_path), cubes_of(0, 128)
    for start, end in itertools.pairwise((0, 1, 40, 77, 128)):
        assert not list(some.add(cubes[start:end]))
        some.mark()
    gate.set()
    assert len(list(some.finish())) == 128 / FRAMES


def test_no_thread_works_on_what_was_given_up(tmp_path, gate):
    some = packer(tmp_path)
    list(some.add(cubes_of(0, UNDER_WAY * AT_ONCE * FRAMES)))
    threading.Timer(0.1, gate.set).start()
    some.stop()
    began, ended = gate.counts()
    assert began == ended <= cores()
    assert some.frames == 0


FORKED = """
import os, sys, numpy as np
from pathlib import Path
from attnact.cache.packing import Packer

def work() -> int:
    some = Packer(Path("x.h5"), "float16", "zstd")
    cubes = np.zeros((40, 7, 7, 1024), np.float16)
    return len([*some.add(cubes), *some.finish()])

assert work() == 10
child = os.fork()
if child == 0:
    os._exit(work())
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
"""


def test_a_fork_packs_with_threads_of_its_own():
    command = [sys.executable, "-W", "ignore", "-c", FORKED]  # Python 3.12 warns of any such fork
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=60)


def test_a_chunk_that_was_not_written_is_given_again(tmp_path):
    some = packer(tmp_path)

    def fail() -> None:
        for _ in some.add(cubes_of(0, 8)):  # gives them at once where a thread was that fast
            raise OSError
        for _ in some.finish():
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        fail()
    assert [it.first for it in some.finish()] == [0, 4]
