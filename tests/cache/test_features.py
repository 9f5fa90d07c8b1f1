"""The cache read back: right frames over shard borders, and no damage that goes unnoticed."""

import os
import shutil
import zlib
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnact.cache import features, shards
from attnact.cache.compact import Cubes, to_float, to_uint8
from attnact.cache.feature_index import Listing, write_index
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import CUBE, SCHEMA, FeatureCache
from attnact.cache.shards import open_hdf5, shard_path
from attnact.cache.tables import VideoRow, index_digest
from attnact.errors import CacheError
from attnact.vocabulary import Compression

SHARDS = [[3, 2], [], [300], [1, 4]]  # frames of the videos of each shard
COMPRESSIONS: list[Compression] = ["none", "none", "zstd", "none"]
FRAMES = sum(map(sum, SHARDS))
NAMES = ["dive/a.avi", "dive/b.avi", "run/c.avi", "run/d.avi", "run/e.avi"]

LISTING = Listing(
    name="folder",
    root=Path("/data"),
    classes=["dive", "run"],
    paths=NAMES,
    labels=np.array([0, 0, 1, 1, 1]),
    groups=list("abcde"),
    folds={"1": np.array([1, 1, 1, 2, 2], np.int8)},
    places=range(5),
)


def cubes_of(first: int, count: int) -> Cubes:
    """Frame number i of the cache holds i + 1 in one place, and nothing else but 0.5 in another."""
    cubes = np.zeros((count, *CUBE), np.float16)
    cubes[np.arange(count), 1, 2, 3] = np.arange(first, first + count) + 1
    cubes[:, 6, 6, -1] = 0.5
    return cubes


def write(path: Path) -> None:
    shard_path(path, 0).parent.mkdir()
    video = first = 0
    for shard, frames in enumerate(SHARDS):
        writer = ShardWriter.claim(shard_path(path, shard), COMPRESSIONS[shard])
        assert writer is not None
        for count in frames:
            writer.append(cubes_of(first, count))
            writer.end_video(VideoRow(video, frame_rate=25.0, decoder="pyav"))
            video, first = video + 1, first + count
        writer.close()
    write_index(path, range(len(SHARDS)), LISTING, {"weights": "IMAGENET1K_V1"})


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A cache that no test changes."""
    path = tmp_path_factory.mktemp("cache") / "small.h5"
    write(path)
    return path


@pytest.fixture
def damaged(written: Path, tmp_path: Path) -> Path:
    """A copy for a test to damage."""
    shutil.copy(written, tmp_path)
    shutil.copytree(written.with_suffix(".shards"), tmp_path / "small.shards")
    return tmp_path / written.name


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


@settings(max_examples=50)
@given(st.integers(0, FRAMES), st.integers(0, 12))
def test_any_run_of_frames_reads_back(written, first, count):
    count = min(count, FRAMES - first)
    cache = FeatureCache(written)
    np.testing.assert_array_equal(cache.read(first, count), cubes_of(first, count))
    cache.close()


def test_all_frames_read_back(written):
    np.testing.assert_array_equal(FeatureCache(written).read(0, FRAMES), cubes_of(0, FRAMES))


def test_a_float32_cache(make_cache, tmp_path):
    def cubes(video: int, frames: int) -> Cubes:
        return np.random.default_rng(video).normal(size=(frames, *CUBE)).astype(np.float32)

    cache = make_cache(tmp_path / "exact.h5", videos=4, frames=lambda video: video + 1, cubes=cubes)
    expected = np.concatenate([cubes(video, video + 1) for video in range(4)])
    assert (cache.dtype, cache.read(0, 3).dtype) == (np.float32, np.float32)
    assert cache.read(0, 10).tobytes() == expected.tobytes()
    with h5py.File(cache.path) as file:
        assert file["features"].dtype == np.float32
        assert np.moveaxis(file["features"][()], 1, -1).tobytes() == expected.tobytes()
    assert list(cache.verify()) == [None] * 4


def test_a_uint8_cache(make_cache, tmp_path):
    def cubes(video: int, frames: int) -> Cubes:
        x = np.random.default_rng(video).exponential(size=(frames, *CUBE)).astype(np.float16)
        return np.where(x > 1, x, 0)

    cache = make_cache(
        tmp_path / "x.h5", videos=4, frames=lambda i: i + 1, cubes=cubes, dtype="uint8"
    )
    expected = to_uint8(np.concatenate([cubes(video, video + 1) for video in range(4)]))
    assert cache.dtype == np.uint8
    stored = cache.read_stored(np.array([9, 2, 3, 3]))
    np.testing.assert_array_equal(stored.cubes, expected.cubes[[9, 2, 3, 3]])
    np.testing.assert_array_equal(stored.scales, expected.scales[[9, 2, 3, 3]])
    assert cache.read(0, 3).dtype == np.float32
    np.testing.assert_array_equal(cache.read(0, 10), to_float(expected))
    assert list(cache.verify()) == [None] * 4
    with h5py.File(cache.path) as file:
        assert file.attrs["schema"] == SCHEMA


@pytest.mark.parametrize("table", ["features", "scales"])
def test_a_changed_byte_of_a_uint8_cache(make_cache, tmp_path, table):
    cache = make_cache(tmp_path / "x.h5", videos=4, dtype="uint8")
    with h5py.File(shard_path(cache.path, 1), "a") as file:
        file[table][0, 3, 3] += 1
    assert [problem is None for problem in cache.verify()] == [True, True, False, True]


def test_a_cache_of_schema_1(tmp_path):
    """Channels last in the file; the only schema there was at first."""
    path = tmp_path / "old.h5"
    write(path)
    for shard in range(len(SHARDS)):
        with h5py.File(shard_path(path, shard), "a") as file:
            cubes = np.moveaxis(file["features"][()], 1, -1)
            del file["features"], file.attrs["digest"]  # which came later
            file.create_dataset("features", data=cubes, maxshape=(None, *CUBE), chunks=(4, *CUBE))
            if len(cubes):
                starts = np.cumsum([0, *SHARDS[shard]])
                file["videos/checksum"][...] = [
                    zlib.crc32(cubes[a:b].tobytes()) for a, b in pairwise(starts)
                ]
    cache = write_index(path, range(len(SHARDS)), LISTING, {})
    with h5py.File(path) as file:
        assert (file.attrs["schema"], file["features"].shape) == (1, (FRAMES, *CUBE))
    np.testing.assert_array_equal(cache.read(0, FRAMES), cubes_of(0, FRAMES))
    assert list(cache.verify()) == [None] * 5


def test_videos_of_unequal_shards(written):
    cache = FeatureCache(written)
    assert cache.frame_counts.tolist() == [3, 2, 300, 1, 4]
    assert cache.first_frames.tolist() == [0, 3, 5, 305, 306]
    assert cache.frames == FRAMES
    assert cache.dtype == np.float16
    assert cache.read(305, 1)[0, 1, 2, 3] == 306
    assert cache.disk_bytes() == sum(p.stat().st_size for p in written.parent.rglob("*.h5"))


def test_no_shard_is_opened_before_it_is_read(damaged):
    shutil.rmtree(damaged.with_suffix(".shards"))
    cache = FeatureCache(damaged)
    assert cache.paths == NAMES
    assert cache.folds["1"].tolist() == [1, 1, 1, 2, 2]


def test_reads_again_after_close(written):
    cache = FeatureCache(written)
    cache.read(0, 2)
    cache.close()
    np.testing.assert_array_equal(cache.read(1, 2), cubes_of(1, 2))
    cache.close()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="nothing here lists open files")
def test_few_shards_are_open_at_once(written, monkeypatch):
    """A system lets a process open a thousand files, and a large cache has more shards."""
    monkeypatch.setattr(features, "OPEN", 1)
    cache = FeatureCache(written)
    frames = np.array([309, 0, 200, 1])
    np.testing.assert_array_equal(cache.read_stored(frames).cubes[:, 1, 2, 3], frames + 1)
    assert list(cache.verify()) == [None] * 5
    opened = {os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()}
    assert len([file for file in opened if f"{written.with_suffix('.shards')}/" in file]) == 1
    cache.close()


def test_a_sound_cache_verifies(written):
    assert list(FeatureCache(written).verify()) == [None] * 5


def place_of(path: Path, frame: int) -> int:
    """Where a frame's last byte lies in an uncompressed shard."""
    with h5py.File(path) as file:
        chunk = file["features"].id.get_chunk_info(frame // 4)
    cube = 7 * 7 * 1024 * 2
    return chunk.byte_offset + (frame % 4 + 1) * cube - 1


@pytest.mark.parametrize(("shard", "frame", "video"), [(0, 2, 0), (0, 3, 1), (3, 0, 3), (3, 4, 4)])
def test_one_flipped_bit_names_its_video(damaged, shard, frame, video):
    path = shard_path(damaged, shard)
    flip(path, place_of(path, frame))
    problems = list(FeatureCache(damaged).verify())
    told = f"{NAMES[video]}: its features changed on disk; delete {path} and run"
    assert str(problems.pop(video)).startswith(told)
    assert problems == [None] * 4


def test_a_compressed_chunk_that_does_not_decompress(make_cache, tmp_path):
    cache = make_cache(tmp_path / "small.h5", videos=4)
    path = shard_path(cache.path, 1)
    with h5py.File(path) as file:
        flip(path, file["features"].id.get_chunk_info(0).byte_offset + 12)
    problems = [problem for problem in cache.verify() if problem]
    advice = "delete it and run `attnact features` again"
    assert problems == [f"{cache.paths[2]}: {path}: damaged; {advice}"]


def test_a_missing_shard(damaged):
    shard_path(damaged, 3).unlink()
    cache = FeatureCache(damaged)
    np.testing.assert_array_equal(cache.read(0, 305), cubes_of(0, 305))
    with pytest.raises(CacheError, match=r"00003\.h5: no such file; `attnact features` makes it"):
        cache.read(304, 2)
    problems = list(cache.verify())
    assert problems[:3] == [None] * 3
    assert [problem.partition(":")[0] for problem in problems[3:]] == NAMES[3:]


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_shard_cut_short(damaged, share):
    path = shard_path(damaged, 0)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CacheError, match=r"00000\.h5: not a whole HDF5 file; if it is a cache"):
        FeatureCache(damaged).read(0, 1)


def test_a_shard_of_another_cache(damaged):
    shutil.copy(shard_path(damaged, 0), shard_path(damaged, 3))
    shutil.copy(shard_path(damaged, 1), shard_path(damaged, 0))
    problems = list(FeatureCache(damaged).verify())
    assert [problem is None for problem in problems] == [False, False, True, False, False]


def test_a_shard_without_features(damaged):
    with h5py.File(shard_path(damaged, 0), "a") as file:
        del file["features"]
    cache = FeatureCache(damaged)
    with pytest.raises(CacheError, match=r"00000\.h5: damaged; delete it"):
        cache.read(0, 1)
    with pytest.raises(CacheError, match=r"00000\.h5: damaged; delete it"):
        write_index(damaged, range(len(SHARDS)), LISTING, {})


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("videos/label", 1),
        ("videos/frames", 2),
        ("videos/checksum", 0),
        ("videos/path", "dive/other.avi"),
        ("videos/frame_rate", 24.0),
        ("folds/1", 2),
        ("classes", "jump"),
        ("shard_frames", 4),
    ],
)
def test_a_changed_table_is_noticed(damaged, table, value):
    with h5py.File(damaged, "a") as file:
        file[table][0] = value
    with pytest.raises(CacheError, match=r"small\.h5: its tables are damaged; delete this one"):
        FeatureCache(damaged)


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [("/", "name", "hmdb51"), ("/", "digest", "0"), ("provenance", "weights", "random")],
)
def test_a_changed_attribute_is_noticed(damaged, where, name, value):
    with h5py.File(damaged, "a") as file:
        file[where].attrs[name] = value
    with pytest.raises(CacheError, match="its tables are damaged"):
        FeatureCache(damaged)


def test_a_lost_table_is_noticed(damaged):
    with h5py.File(damaged, "a") as file:
        del file["videos/group"]
    with pytest.raises(CacheError, match="its tables are damaged"):
        FeatureCache(damaged)


# The digest at the end of the file comes first: HDF5 itself crashes on some of these.
@pytest.mark.parametrize("at", range(0, 20_000, 997))
def test_any_flipped_byte_of_the_index_is_noticed(damaged, at):
    flip(damaged, at % damaged.stat().st_size)
    with pytest.raises(CacheError, match=r"small\.h5: its tables are damaged"):
        FeatureCache(damaged)


@pytest.mark.parametrize("dtype", [">f2", "<f8", "<i2"])
def test_features_of_no_known_type_are_refused(damaged, dtype):
    with h5py.File(damaged, "a") as file:
        shape = file["features"].shape
        del file["features"]
        file.create_dataset("features", shape, dtype)
    with pytest.raises(CacheError, match=r"small\.h5: its tables are damaged"):
        FeatureCache(damaged)


def test_a_newer_schema_is_refused(damaged):
    with h5py.File(damaged, "a") as file:
        file.attrs["schema"] = SCHEMA + 1
        file.attrs["digest"] = index_digest(file)
    with pytest.raises(CacheError, match=rf"newer attnact \(schema {SCHEMA + 1}; .*upgrade"):
        FeatureCache(damaged)


def test_files_that_are_no_caches(tmp_path, written):
    missing, text, other = (tmp_path / name for name in ("none.h5", "text.h5", "other.h5"))
    text.write_text("features")
    with h5py.File(other, "w") as file:
        file["features"] = np.zeros(3)
    for path, why in [
        (missing, "no such file; `attnact features` makes it"),
        (tmp_path, "no such file"),
        (text, "not a whole HDF5 file"),
        (other, "an HDF5 file, but not a feature cache of attnact"),
        (shard_path(written, 0), "an HDF5 file, but not a feature cache of attnact"),
    ]:
        with pytest.raises(CacheError, match=why) as caught:
            FeatureCache(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_shard_that_may_not_be_read_is_no_broken_one(damaged, monkeypatch):
    def refuse(*of: object) -> None:
        raise PermissionError(13, "Unable to open file (errno = 13, o_flags = 0)")

    monkeypatch.setattr(shards.h5py, "File", refuse)
    with pytest.raises(CacheError, match=r"small\.h5: cannot be read \(Permission denied\)$"):
        open_hdf5(damaged)


def test_a_refused_file_is_closed_again(damaged):
    with h5py.File(damaged, "a") as file:
        file["classes"][0] = "jump"
    with pytest.raises(CacheError):
        FeatureCache(damaged)
    with h5py.File(damaged, "a") as file:  # HDF5 would refuse, were it still open to read
        file["classes"][0] = "dive"
    assert FeatureCache(damaged).classes == ["dive", "run"]
    open_hdf5(damaged).close()
