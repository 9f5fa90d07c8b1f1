"""What a shard holds, whatever was appended and dropped."""

import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnact.cache.compact import Cubes, Stored, to_uint8
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import CUBE
from attnact.cache.tables import VideoRow, read_rows
from attnact.errors import CacheError
from attnact.vocabulary import Compression
from tests.made_shards import add, claim, cubes_of, features_in, names, write

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
@settings(max_examples=25)
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


@pytest.mark.parametrize("after", [0, 30])
@pytest.mark.parametrize(("compression", "dtype"), KINDS[:-1])
def test_a_long_video_that_is_dropped_leaves_no_trace(shard, compression, dtype, after):
    """Some of it is written by then. HDF5 has begun another page of its list of chunks, after 64 of
    them, and does not go back."""
    paths = shard, shard.with_name("00001.h5")
    whole, other = (ShardWriter.claim(path, compression, dtype) for path in paths)
    cubes = np.repeat(cubes_of(0, 10), 30, axis=0)
    for writer in (whole, other):
        writer.append(cubes[:200])
        writer.end_video(VideoRow(0))
        if writer is other:
            writer.append(cubes)
        writer.drop_video(1, "it broke")
        writer.append(cubes[:after])
        writer.end_video(VideoRow(2))
        writer.close()
    assert whole.path.read_bytes() == other.path.read_bytes()
