"""Shards are whole or absent, whoever dies when; the index lists what they hold."""

import signal
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_shards import add, claim, cubes_of, features_in, names, write

from attnact.compact import Stored, to_uint8
from attnact.errors import CacheError
from attnact.feature_writer import ShardWriter
from attnact.features import CUBE, Cubes, VideoRow, read_rows
from attnact.vocabulary import Compression

COMPRESSIONS: tuple[Compression, ...] = ("zstd", "lz4", "gzip", "none")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_shards_read_back_with_plain_h5py(shard, compression):
    write(shard, {4: 5, 7: 1, 9: 6}, compression)
    assert names(shard.parent) == ["00000.h5"]
    with h5py.File(shard) as file:
        expected = np.concatenate([cubes_of(4, 5), cubes_of(7, 1), cubes_of(9, 6)])
        assert file["features"].dtype == np.float16
        np.testing.assert_array_equal(features_in(file), expected)
        rows = read_rows(file["videos"])
    assert [(row.video, row.frames) for row in rows] == [(4, 5), (7, 1), (9, 6)]
    assert rows[0].frame_rate == 29.97
    assert (rows[0].width, rows[0].height, rows[0].declared_frames) == (320, 240, 6)
    assert {row.decoder for row in rows} == {"pyav"}


@pytest.mark.parametrize("compression", ["zstd", "lz4", "gzip"])
def test_compressed_shards_are_smaller(shard, compression):
    write(shard, {0: 4}, compression)
    assert shard.stat().st_size < 0.5 * cubes_of(0, 4).nbytes


def test_checksums_do_not_depend_on_blocks_or_neighbours(shard):
    write(shard, {3: 7})
    other = shard.with_name("00001.h5")
    writer = claim(other, "none")
    add(writer, 2, 2)
    add(writer, 3, 7, block=2)
    writer.close()
    with h5py.File(shard) as one, h5py.File(other) as two:
        assert read_rows(one["videos"])[0] == read_rows(two["videos"])[1]


def test_a_dropped_video_is_forgotten(shard):
    writer = claim(shard)
    add(writer, 0, 2)
    writer.append(cubes_of(1, 6))
    writer.drop_video(1, "it broke")
    add(writer, 2, 3)
    writer.drop_video(3, "empty")
    writer.close()
    with h5py.File(shard) as file:
        expected = np.concatenate([cubes_of(0, 2), cubes_of(2, 3)])
        np.testing.assert_array_equal(features_in(file), expected)
        rows = read_rows(file["videos"])
    write(shard.with_name("00001.h5"), {2: 3})
    with h5py.File(shard.with_name("00001.h5")) as file:
        assert rows[2] == read_rows(file["videos"])[0]  # its checksum has nothing of video 1
    assert rows[1] == VideoRow(1, failure="it broke")
    assert rows[3] == VideoRow(3, failure="empty")


@pytest.mark.parametrize("frame", [0, 3, 4, 29])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_features_that_are_no_numbers_are_refused(shard, value, frame):
    """At the latest by `close`, and as often as it is tried."""
    cubes = cubes_of(0, 30)
    cubes[frame, 6, 6, 1023] = value
    writer = claim(shard)
    told = r"00000\.h5: features overflow float16; are the weights right\?"
    with pytest.raises(CacheError, match=told):
        add_cubes(writer, cubes)
    for _ in range(2):
        with pytest.raises(CacheError, match=told):
            writer.close()
    writer.abandon()
    assert names(shard.parent) == []


def test_uint8_has_no_place_for_features_below_zero(shard):
    cubes = cubes_of(0, 2)
    cubes[1, 6, 6, 1023] = -1e-3
    writer = ShardWriter.claim(shard, "zstd", "uint8")
    with pytest.raises(CacheError, match=r"00000\.h5: features below zero; uint8 has none, f"):
        add_cubes(writer, cubes)
    writer.abandon()


def test_what_is_wrong_with_a_dropped_video_harms_no_other(shard):
    """It shares a chunk with the video before it, and with the one after."""
    bad = cubes_of(1, 9)
    bad[:, 0, 0, 0] = np.nan
    writer = claim(shard)
    add(writer, 0, 3)
    for cubes in (bad[:1], bad):
        writer.append(cubes)
        writer.drop_video(1, "it broke")
    add(writer, 2, 3)
    writer.close()
    with h5py.File(shard) as file:
        expected = np.concatenate([cubes_of(0, 3), cubes_of(2, 3)])
        np.testing.assert_array_equal(features_in(file), expected)


def add_cubes(writer: ShardWriter, cubes: Cubes) -> None:
    """To the end: what is wrong with them may be told by any of these."""
    writer.append(cubes)
    writer.end_video(VideoRow(0))
    writer.close()


def test_a_uint8_shard(shard):
    """A dropped video leaves neither cubes nor scales."""
    writer = ShardWriter.claim(shard, "zstd", "uint8")
    add(writer, 0, 5)
    writer.append(cubes_of(1, 2))
    writer.drop_video(1, "it broke")
    add(writer, 2, 1)
    writer.close()
    expected = to_uint8(np.concatenate([cubes_of(0, 5), cubes_of(2, 1)]))
    with h5py.File(shard) as file:
        assert file["features"].dtype == np.uint8
        np.testing.assert_array_equal(features_in(file), expected.cubes)
        np.testing.assert_array_equal(file["scales"], expected.scales)
        checksums = [row.checksum for row in read_rows(file["videos"])]
    q = np.moveaxis(expected.cubes[5:], -1, 1)
    assert checksums[2] == zlib.crc32(q.tobytes() + expected.scales[5:].tobytes())


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_float32_is_kept_to_the_bit(shard, compression):
    cubes = np.random.default_rng(0).normal(size=(6, *CUBE)).astype(np.float32)
    cubes[:, 0, 0, :4] = [-0.0, 1e-45, 1 / 3, np.finfo(np.float32).max]
    writer = ShardWriter.claim(shard, compression, np.float32)
    writer.append(cubes[:4])
    writer.append(cubes[4:])
    writer.end_video(VideoRow(0))
    writer.close()
    with h5py.File(shard) as file:
        assert file["features"].dtype == np.float32
        assert features_in(file).tobytes() == cubes.tobytes()
        in_file = cubes.reshape(6, 49, 1024).swapaxes(1, 2)
        assert read_rows(file["videos"])[0].checksum == zlib.crc32(in_file.tobytes())


@pytest.mark.parametrize(("shards", "given"), [("float16", "float32"), ("float32", "float16")])
def test_cubes_of_another_dtype_are_not_rounded_silently(shard, shards, given):
    writer = ShardWriter.claim(shard, "zstd", shards)
    with pytest.raises(ValueError, match=f"takes {shards}, not {given}"):
        writer.append(np.ones((1, *CUBE), given))
    writer.abandon()


def test_nothing_is_seen_before_close(shard):
    writer = claim(shard)
    add(writer, 0, 2)
    assert not shard.exists()
    writer.close()
    assert names(shard.parent) == ["00000.h5"]


def test_an_abandoned_shard_leaves_nothing_and_may_be_claimed_again(shard):
    writer = claim(shard)
    add(writer, 0, 2)
    writer.abandon()
    writer.abandon()  # a second time does no harm
    assert names(shard.parent) == []
    write(shard, {0: 2})
    assert names(shard.parent) == ["00000.h5"]


def test_abandoning_a_closed_shard_leaves_it(shard):
    writer = claim(shard)
    writer.close()
    writer.abandon()
    assert names(shard.parent) == ["00000.h5"]


KINDS = [(c, "float16") for c in COMPRESSIONS] + [("zstd", "uint8"), ("none", "uint8")]
KINDS += [("gzip", "float32")]


@pytest.mark.parametrize(("compression", "dtype"), KINDS)
@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.sampled_from(["end", "drop", 1, 2, 3, 4, 5, 9]), max_size=20))
def test_a_shard_holds_what_was_not_dropped(tmp_path_factory, compression, dtype, steps):
    """Any videos in any pieces: read by HDF5, and byte for byte as if the others had not been."""
    folder = tmp_path_factory.mktemp("shards")
    given_as = np.dtype("float32" if dtype == "float32" else "float16")
    writers = [ShardWriter.claim(folder / f"{i}.h5", compression, dtype) for i in range(2)]
    kept, rows, video = [np.empty((0, *CUBE), given_as)], 0, []
    for i, step in enumerate([*steps, "end"]):
        if step == "end":
            whole = np.concatenate([kept[0][:0], *video])
            writers[1].append(whole)
            for writer in writers:
                writer.end_video(VideoRow(rows))
            kept.append(whole)
        elif step == "drop":
            for writer in writers:
                writer.drop_video(rows, "it broke")
        else:
            video.append(cubes_of(i, step).astype(given_as))
            writers[0].append(video[-1])
            continue
        rows, video = rows + 1, []
    for writer in writers:
        writer.close()
    cubes = np.concatenate(kept)
    stored = to_uint8(cubes) if dtype == "uint8" else Stored(cubes, None)
    with h5py.File(folder / "0.h5") as file:
        np.testing.assert_array_equal(features_in(file), stored.cubes)
        if stored.scales is not None:
            np.testing.assert_array_equal(file["scales"], stored.scales)
        found = [row for row in read_rows(file["videos"]) if not row.failure]
    assert [row.frames for row in found] == [len(video) for video in kept[1:]]
    first = 0
    for row in found:
        part = slice(first, first + row.frames)
        content = np.moveaxis(stored.cubes[part], -1, 1).tobytes()
        content += b"" if stored.scales is None else stored.scales[part].tobytes()
        assert row.checksum == zlib.crc32(content)
        first += row.frames
    assert (folder / "0.h5").read_bytes() == (folder / "1.h5").read_bytes()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_long_video_that_is_dropped_leaves_no_trace(shard, compression):
    """HDF5 has begun another page of its list of chunks, after 64 of them, and does not go back."""
    whole, other = claim(shard, compression), claim(shard.with_name("00001.h5"), compression)
    cubes = np.repeat(cubes_of(0, 10), 30, axis=0)
    for writer in (whole, other):
        writer.append(cubes[:201])
        writer.end_video(VideoRow(0))
        if writer is other:
            writer.append(cubes)
        writer.drop_video(1, "it broke")
        writer.append(cubes[:30])
        writer.end_video(VideoRow(2))
        writer.close()
    assert whole.path.read_bytes() == other.path.read_bytes()


def test_many_writers_at_once(shard):
    paths = [shard.with_name(f"{i}.h5") for i in range(5)]
    writers = [claim(path) for path in paths]
    for video in range(3):
        for writer in writers:
            add(writer, video, 33, block=7)
    for writer in writers[1:]:
        writer.close()
    writers[0].abandon()
    assert names(shard.parent) == ["1.h5", "2.h5", "3.h5", "4.h5"]
    assert len({path.read_bytes() for path in paths[1:]}) == 1


FULL = """
import gc, resource, sys, numpy as np
from pathlib import Path
from attnact.compact import to_uint8
from attnact.errors import CacheError
from attnact.feature_writer import ShardWriter
from attnact.features import VideoRow
from attnact.files import full_disk_told
limit = int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
writer = ShardWriter.claim(Path(sys.argv[1]), sys.argv[2])
random = np.random.default_rng(0)
try:
    with full_disk_told(writer.path):
        for _ in range(int(sys.argv[3])):
            writer.append(random.random((3, 7, 7, 1024)).astype(np.float16))
        writer.end_video(VideoRow(0))
        writer.close()
except CacheError as error:
    print(error)
    writer.abandon()
del writer
gc.collect()
"""


@pytest.mark.parametrize("compression", ["zstd", "none"])
@pytest.mark.parametrize(("blocks", "limit"), [(5, 1 << 20), (60, 1 << 20), (5, 100), (5, 3000)])
def test_a_disk_that_fills_up_crashes_nothing(shard, compression, blocks, limit):
    """In place of a full disk, no file may grow beyond a limit.

    5 blocks meet that of a MiB only in `close`, and HDF5 the others when it begins the file.
    """
    command = [sys.executable, "-c", FULL, str(shard), compression, str(blocks), str(limit)]
    root = Path(__file__).parents[1]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout == f"{shard}: cannot be written (File too large)\n"
    assert not result.stderr
    assert names(shard.parent) == []


INTERRUPTED = """
import signal, sys, numpy as np
from pathlib import Path
from attnact import feature_writer
from attnact.features import VideoRow
from attnact.sink import Sink

class Interrupting(Sink):
    def write(self, content):
        signal.raise_signal(signal.SIGINT)
        return super().write(content)

def go_on(call, *args):
    try:
        call(*args)
    except KeyboardInterrupt:
        print("interrupted")

for shard, feature_writer.Sink in (("0.h5", Interrupting), ("1.h5", Sink)):
    writer = feature_writer.ShardWriter.claim(Path(sys.argv[1], shard), "zstd")
    for _ in range(6):
        go_on(writer.append, np.ones((3, 7, 7, 1024), np.float16))
    go_on(writer.drop_video, 0, "it broke")
    go_on(writer.append, np.ones((9, 7, 7, 1024), np.float16))
    writer.end_video(VideoRow(1))
    go_on(writer.close)
"""


def test_an_interrupted_write_crashes_nothing(tmp_path):
    """Ctrl-C comes whenever HDF5 writes: what was asked for is done, and then it is heard."""
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    root = Path(__file__).parents[1]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert set(result.stdout.splitlines()) == {"interrupted"}
    assert not result.stderr
    assert names(tmp_path) == ["0.h5", "1.h5"]
    assert (tmp_path / "0.h5").read_bytes() == (tmp_path / "1.h5").read_bytes()


def test_a_shard_has_one_writer(shard):
    writer = claim(shard)
    assert ShardWriter.claim(shard, "zstd") is None
    other = claim(shard.with_name("00001.h5"))
    other.abandon()
    writer.close()
    assert ShardWriter.claim(shard, "zstd") is None  # it is finished
    assert names(shard.parent) == ["00000.h5"]


def test_the_same_videos_make_the_same_bytes(shard):
    write(shard, {0: 5, 1: 2})
    again = shard.with_name("00001.h5")
    writer = claim(again)
    add(writer, 0, 5, block=1)
    writer.abandon()
    write(again, {0: 5, 1: 2})
    assert shard.read_bytes() == again.read_bytes()


OWNER = """
import sys, time, numpy as np
from pathlib import Path
from attnact.feature_writer import ShardWriter
from attnact.features import VideoRow
writer = ShardWriter.claim(Path(sys.argv[1]), "zstd")
writer.append(np.ones((9, 7, 7, 1024), np.float16))
writer.end_video(VideoRow(0))
writer._file.flush()
print("claimed", flush=True)
time.sleep(600)
"""


def test_the_death_of_a_writer_frees_its_shard(shard):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", OWNER, str(shard)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"claimed\n"
        assert ShardWriter.claim(shard, "zstd") is None
        owner.send_signal(signal.SIGKILL)
    assert not shard.exists()
    write(shard, {0: 5})
    write(shard.with_name("00001.h5"), {0: 5})
    (left,) = set(names(shard.parent)) - {"00000.h5", "00001.h5"}
    assert left.endswith(f".{owner.pid}.part")  # which goes when the index is made
    assert shard.read_bytes() == shard.with_name("00001.h5").read_bytes()


@pytest.mark.parametrize("first", ["cut off", "its heir"])
def test_a_writer_that_lost_its_lock_does_no_harm(shard, monkeypatch, first):
    """A machine that is cut off, say: it goes on while another one makes the same shard."""
    write(shard, {0: 3, 1: 2})
    whole = shard.read_bytes()
    shard.unlink()
    writers = {"cut off": claim(shard)}
    add(writers["cut off"], 0, 3)
    shard.with_suffix(".lock").unlink()
    monkeypatch.setattr("socket.gethostname", lambda: "another machine")
    writers["its heir"] = claim(shard)
    add(writers["its heir"], 0, 3)
    for name in sorted(writers, key=lambda name: name != first):
        add(writers[name], 1, 2)
        assert name != first or not shard.exists()
        writers[name].close()
        assert shard.read_bytes() == whole
    assert names(shard.parent) == ["00000.h5"]
