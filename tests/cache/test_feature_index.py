"""The index of a cache lists what its shards hold, and is not made over shards that changed."""

import time
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
import pytest

from attnact.cache.feature_index import Listing, write_index
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.shards import shard_path
from attnact.errors import CacheError
from tests.made_shards import add, claim, cubes_of, features_in, names, write

PATHS = ["dive/a.avi", "dive/b.mpg", "run/ü, c.avi", "run/d.avi"]


def listing(**changes: object) -> Listing:
    values = {
        "name": "folder",
        "root": Path("/data/folder"),
        "classes": ["dive", "run"],
        "paths": PATHS,
        "labels": np.array([0, 0, 1, 1]),
        "groups": ["g1", "g2", "g3", "g4"],
        "places": range(4),
        "folds": {
            "2": np.array([1, 1, 2, 0], np.int8),
            "10": np.array([2, 1, 1, 1], np.int8),
            "1": np.array([1, 2, 2, 1], np.int8),
        },
    }
    return Listing(**{**values, **changes})


@pytest.fixture
def cache_path(shard: Path) -> Path:
    """Two shards of four videos, of which the second failed."""
    writer = claim(shard)
    add(writer, 0, 3)
    writer.append(cubes_of(1, 2))
    writer.drop_video(1, "b.mpg: truncated, 2 of 9 frames decode")
    writer.close()
    write(shard.with_name("00001.h5"), {2: 2, 3: 4})
    return shard.parent.with_name("small.h5")


def test_the_index_lists_what_the_shards_hold(cache_path):
    provenance = {"backbone": "googlenet", "command": "attnact features ü"}
    cache = write_index(cache_path, range(2), listing(), provenance)
    assert names(cache_path.parent) == ["small.h5", "small.shards"]
    assert (cache.name, cache.root, cache.classes) == (
        *("folder", Path("/data/folder")),
        ["dive", "run"],
    )
    assert cache.paths == [PATHS[0], PATHS[2], PATHS[3]]
    assert cache.groups == ["g1", "g3", "g4"]
    assert cache.labels.tolist() == [0, 1, 1]
    assert cache.frame_counts.tolist() == [3, 2, 4]
    assert cache.first_frames.tolist() == [0, 3, 5]
    assert cache.frame_rates.tolist() == [29.97] * 3
    assert cache.frames == 9
    assert list(cache.folds) == ["2", "10", "1"]  # as the data set orders them
    assert [sides.tolist() for sides in cache.folds.values()] == [[1, 2, 0], [2, 1, 1], [1, 2, 1]]
    assert cache.failures == [("dive/b.mpg", "b.mpg: truncated, 2 of 9 frames decode")]
    assert cache.provenance == provenance
    assert not cache.multi_label
    cache.close()


def test_several_labels_a_video(cache_path):
    labels = np.array([[1, 0], [1, 1], [0, 1], [1, 1]])
    cache = write_index(cache_path, range(2), listing(labels=labels), {})
    assert cache.multi_label
    assert cache.labels.tolist() == [[1, 0], [0, 1], [1, 1]]


def test_plain_h5py_reads_the_features_wherever_the_cache_goes(cache_path, tmp_path):
    write_index(cache_path, range(2), listing(), {})
    elsewhere = tmp_path / "moved" / "further"
    elsewhere.mkdir(parents=True)
    for path in (cache_path, cache_path.with_suffix(".shards")):
        path.rename(elsewhere / path.name)
    expected = np.concatenate([cubes_of(0, 3), cubes_of(2, 2), cubes_of(3, 4)])
    with h5py.File(elsewhere / "small.h5") as file:
        np.testing.assert_array_equal(features_in(file), expected)
        stems = [PurePosixPath(PATHS[i]).stem for i in (0, 2, 3)]
        assert list(file["videos/name"].asstr()) == stems


def test_the_same_shards_make_the_same_index(cache_path):
    start = int(time.time())
    write_index(cache_path, range(2), listing(), {"backbone": "googlenet"})
    first = cache_path.read_bytes()
    write_index(cache_path, range(2), listing(), {"backbone": "googlenet"})
    assert cache_path.read_bytes() == first
    for second in range(start, int(time.time()) + 1):  # nothing in it tells when it was written
        assert second.to_bytes(4, "little") not in first


def test_no_index_over_a_missing_shard(cache_path):
    shard_path(cache_path, 1).unlink()
    with pytest.raises(CacheError, match=r"00001.h5: no such file"):
        write_index(cache_path, range(2), listing(), {})
    assert names(cache_path.parent) == ["small.shards"]


def test_an_index_over_nothing_but_failures(shard):
    writer = claim(shard)
    for video in range(4):
        writer.drop_video(video, "broken")
    writer.close()
    cache = write_index(shard.parent.with_name("small.h5"), range(1), listing(), {})
    assert (cache.frames, cache.paths, len(cache.failures)) == (0, [], 4)
    assert cache.parallel  # for want of a shard that says otherwise
    assert list(cache.verify()) == []
    with h5py.File(cache.path) as file:
        assert file["features"].shape == (0, 1024, 7, 7)


def test_shards_of_two_dtypes_make_no_cache(cache_path):
    other = shard_path(cache_path, 2)
    writer = ShardWriter.claim(other, "zstd", np.float32)
    writer.close()
    with pytest.raises(CacheError, match=r"small\.shards: shards of other features among them"):
        write_index(cache_path, range(3), listing(), {})
    assert not cache_path.exists()


def test_no_index_over_a_shard_whose_tables_changed(cache_path):
    with h5py.File(shard_path(cache_path, 1), "a") as file:
        file["videos/frame_rate"][0] += 1
    with pytest.raises(CacheError, match=r"00001\.h5: damaged; delete it and run"):
        write_index(cache_path, range(2), listing(), {})
    with h5py.File(shard_path(cache_path, 1), "a") as file:
        del file.attrs["digest"]  # as in shards from before there was one
    assert write_index(cache_path, range(2), listing(), {}).frames > 0
