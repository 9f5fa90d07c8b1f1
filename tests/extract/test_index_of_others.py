"""Clips that were added, taken away, mended or changed: what there is of the others is kept."""

import shutil

import h5py
import pytest

from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import FeatureCache
from attnact.cache.shards import shard_path
from attnact.errors import CacheError
from attnact.extract import pipeline
from attnact.extract.pipeline import describe, extract, frames_left
from attnact.extract.plan import read_plan
from tests.made_extraction import (
    CLIPS,
    SHARDS,
    begin,
    hold,
    ignore,
    interrupt,
    make_dataset,
    remade,
    stop_after,
)
from tests.made_files import contents

pytestmark = pytest.mark.usefixtures("surroundings")


def changed(cache: FeatureCache) -> list[str]:
    return [path for video, path in enumerate(cache.paths) if cache.changed(video)]


FEWER = ["dive/b.avi", "run/d.avi", "run/e.mpg"]


def test_more_videos_keep_the_features_that_there_are(root, tmp_path):
    """Of a folder to which clips were added; the index is deleted, as the command says."""
    cache = tmp_path / "small.h5"
    extract(begin(make_dataset(root, FEWER), cache), ignore)
    before = contents(cache.parent)
    dataset = make_dataset(root, list(CLIPS))
    told = (
        r"made with other videos \(0 gone, 2 new, such as dive/a.avi\); delete this one file "
        r"\(not the shards\)"
    )
    with pytest.raises(CacheError, match=told):
        begin(dataset, cache)
    assert contents(cache.parent) == before
    cache.unlink()
    extraction = begin(dataset, cache)
    assert "5 videos, 2 classes, about 99 frames" in describe(extraction)
    assert frames_left(extraction) == 6
    told = []
    made = extract(extraction, lambda *counts: told.append(counts))
    assert [sum(counts) for counts in zip(*told, strict=True)] == [6, 2, 0]
    assert made.paths == [*FEWER, "dive/a.avi", "run/c.mp4"]
    assert made.frames == 99
    assert made.labels.tolist() == [0, 1, 1, 0, 1]
    assert made.folds["1"].tolist() == [1, 1, 2, 2, 2]  # as the data set has it, video by video
    assert made.groups == [f"group {i}" for i in (1, 3, 4, 0, 2)]
    hold(made, root)
    after = contents(cache.parent)
    shards = [name for name in before if name.startswith("small.shards/0")]
    assert {name: after[name] for name in shards} == {name: before[name] for name in shards}
    begin(dataset, cache)
    assert contents(cache.parent) == after


def test_a_cache_over_copied_shards_beside_the_one_of_the_runs(root, tmp_path):
    cache, more = tmp_path / "small.h5", tmp_path / "more.h5"
    first = extract(begin(make_dataset(root, FEWER), cache), ignore)
    shutil.copytree(cache.with_suffix(".shards"), more.with_suffix(".shards"))
    extraction = begin(make_dataset(root, list(CLIPS)), more)
    assert frames_left(extraction) == 6
    hold(extract(extraction, ignore), root)
    assert FeatureCache(cache).digest == first.digest
    hold(first, root)


def test_fewer_videos_are_listed_and_the_others_stay_in_their_shards(root, tmp_path):
    cache = tmp_path / "small.h5"
    extract(begin(make_dataset(root, list(CLIPS)), cache), ignore)
    before, dataset = contents(cache.parent), make_dataset(root, FEWER)
    with pytest.raises(CacheError, match=r"\(2 gone, 0 new, such as dive/a\.avi\)"):
        begin(dataset, cache)
    cache.unlink()
    extraction = begin(dataset, cache)
    assert "3 videos, 2 classes, about 93 frames" in describe(extraction)
    made = extract(extraction, lambda *counts: pytest.fail("all features are there"))
    assert (made.paths, made.frames, made.positions) == (FEWER, 93, 99)
    assert made.first_frames.tolist() == [5, 46, 79]
    hold(made, root)
    after = contents(cache.parent)
    assert extract(begin(dataset, cache), ignore).digest == made.digest
    assert contents(cache.parent) == after
    assert {name: after[name] for name in after if "shards" in name} == {
        name: before[name] for name in before if "shards" in name
    }
    cache.unlink()  # and all of them again
    assert extract(begin(make_dataset(root, list(CLIPS)), cache), ignore).paths == list(CLIPS)
    assert contents(cache.parent) == before


def test_a_shard_with_a_video_that_is_gone_is_made_again_without_it(root, tmp_path):
    """Where its frames were there are none now, so the frames of the next ones move."""
    videos, cache = tmp_path / "videos", tmp_path / "small.h5"
    shutil.copytree(root, videos)
    extract(begin(make_dataset(videos, list(CLIPS)), cache), ignore)
    cache.unlink()
    dataset = make_dataset(videos, FEWER)
    extract(begin(dataset, cache), ignore)
    (videos / "dive/a.avi").unlink()
    shard_path(cache, 0).unlink()
    made = remade(dataset, cache)
    assert (made.paths, made.failures) == (FEWER, [])
    assert made.first_frames.tolist() == [0, 41, 74]
    hold(made, videos)


def test_a_bad_video_that_was_taken_out_leaves_the_cache_as_it_is(root, tmp_path):
    videos, cache = tmp_path / "videos", tmp_path / "features/small.h5"
    shutil.copytree(root, videos)
    (videos / "dive/bad.avi").write_text("no video")
    made = extract(begin(make_dataset(videos, [*CLIPS, "dive/bad.avi"]), cache), ignore)
    assert len(made.failures) == 1
    before = contents(cache.parent)
    (videos / "dive/bad.avi").unlink()
    assert extract(begin(make_dataset(videos, list(CLIPS)), cache), ignore).digest == made.digest
    assert contents(cache.parent) == before


@pytest.mark.parametrize("how", ["mended", "put back"])
def test_a_video_that_failed_is_made_again_where_its_file_is_another_one(root, tmp_path, how):
    """That one alone, and once: in a shard of its own, when the index is written anew."""
    videos, cache = tmp_path / "videos", tmp_path / "features/small.h5"
    shutil.copytree(root, videos)
    bad, whole = videos / "dive/b.avi", (root / "dive/b.avi").read_bytes()
    bad.write_bytes(whole[: len(whole) // 2]) if how == "mended" else bad.unlink()
    dataset = make_dataset(videos, list(CLIPS))
    first = extract(begin(dataset, cache), ignore)
    assert [path for path, _ in first.failures] == ["dive/b.avi"]
    begin(dataset, cache)
    cache.unlink()
    assert extract(begin(dataset, cache), ignore).digest == first.digest  # nothing has changed
    shards = contents(cache.parent)
    bad.write_bytes(whole)
    assert extract(begin(dataset, cache), ignore).digest == first.digest  # nor been asked for
    cache.unlink()
    extraction = begin(dataset, cache)
    assert frames_left(extraction) == 40
    assert "5 videos, 2 classes, about 99 frames" in describe(extraction)
    made = extract(extraction, ignore)
    assert (sorted(made.paths), made.failures) == (sorted(CLIPS), [])
    hold(made, videos)
    after = contents(cache.parent)
    assert {name: after[name] for name in shards if name.startswith("small.shards/0")} == {
        name: shards[name] for name in shards if name.startswith("small.shards/0")
    }
    assert extract(begin(dataset, cache), ignore).digest == made.digest
    assert contents(cache.parent) == after
    plan = read_plan(cache)
    assert plan.shards_of(["dive/b.avi"]) == [len(plan.starts) - 1]


def test_clips_added_in_the_middle_of_an_extraction(root, tmp_path):
    cache = tmp_path / "small.h5"
    with pytest.raises(KeyboardInterrupt):
        extract(begin(make_dataset(root, FEWER), cache), stop_after(8, interrupt))
    first = contents(cache.parent)["small.shards/00000.h5"]
    made = extract(begin(make_dataset(root, list(CLIPS)), cache), ignore)
    assert sorted(made.paths) == sorted(CLIPS)
    assert contents(cache.parent)["small.shards/00000.h5"] == first
    hold(made, root)


def test_what_nobody_asks_for_any_more_is_not_made(root, tmp_path):
    cache, few = tmp_path / "small.h5", ["dive/a.avi", "run/c.mp4"]
    with pytest.raises(KeyboardInterrupt):
        extract(begin(make_dataset(root, list(CLIPS)), cache), stop_after(1, interrupt))
    extraction = begin(make_dataset(root, few), cache)
    assert "to make: 1 of 1 shards, about 46 frames" in describe(extraction)
    made = extract(extraction, ignore)
    assert (made.paths, made.positions) == (few, 46)
    assert [shard_path(cache, shard).exists() for shard in range(SHARDS)] == [True, False, False]
    hold(made, root)
    assert made.disk_bytes() > 0
    cache.unlink()  # and now all
    assert extract(begin(make_dataset(root, list(CLIPS)), cache), ignore).paths == list(CLIPS)


def test_another_folder_into_the_cache_of_an_interrupted_one(root, tmp_path):
    """Nothing of the first is decoded from where the second lies."""
    cache, other = tmp_path / "small.h5", tmp_path / "other"
    (other / "run").mkdir(parents=True)
    shutil.copy(root / "run/c.mp4", other / "run/y.mp4")
    shutil.copy(root / "run/d.avi", other / "run/z.avi")
    first = make_dataset(root, list(CLIPS))
    with pytest.raises(KeyboardInterrupt):
        extract(begin(first, cache), stop_after(1, interrupt))
    made = extract(begin(make_dataset(other, ["run/y.mp4", "run/z.avi"]), cache), ignore)
    assert made.first_frames.tolist() == [0, 1]  # none of a shard before
    assert made.parallel
    hold(made, other)
    cache.unlink()
    made = extract(begin(first, cache), ignore)
    assert (made.paths, made.failures) == (list(CLIPS), [])
    hold(made, root)


def test_who_ends_leaves_the_shards_of_others_alone(root, tmp_path):
    """Clips were added, and another process writes their shard when this one writes its index."""
    cache = tmp_path / "small.h5"
    theirs = begin(make_dataset(root, FEWER), cache)
    pipeline.begin(theirs)
    more = begin(make_dataset(root, list(CLIPS)), cache)
    plan = pipeline.begin(more)
    (new,) = set(plan.shards_of(CLIPS)) - set(plan.shards_of(FEWER))
    writer = ShardWriter.claim(shard_path(cache, new), "zstd")
    part = shard_path(cache, 0).with_name("00000.h5.elsewhere.1.part")
    part.touch()  # of a process that was killed
    extract(theirs, ignore)
    assert not part.exists()
    writer.close()
    assert shard_path(cache, new).exists()


def test_who_comes_last_does_not_list_other_videos(root, tmp_path):
    """Clips are added while another process extracts, and that one ends first."""
    cache = tmp_path / "small.h5"
    theirs = begin(make_dataset(root, FEWER), cache)
    pipeline.begin(theirs)
    ours = begin(make_dataset(root, list(CLIPS)), cache)
    pipeline.begin(ours)
    first = extract(theirs, ignore)
    with pytest.raises(CacheError, match=r"made with other videos \(0 gone, 2 new"):
        extract(ours, ignore)
    assert FeatureCache(cache).digest == first.digest
    hold(first, root)
    cache.unlink()
    hold(extract(begin(make_dataset(root, list(CLIPS)), cache), ignore), root)


def test_a_file_that_is_another_one_now_is_told(root, tmp_path):
    videos, cache = tmp_path / "videos", tmp_path / "small.h5"
    shutil.copytree(root, videos)
    dataset = make_dataset(videos, list(CLIPS))
    assert changed(extract(begin(dataset, cache), ignore)) == []
    shutil.copy(videos / "run/d.avi", videos / "dive/b.avi")
    assert changed(extract(begin(dataset, cache), ignore)) == ["dive/b.avi"]
    assert read_plan(cache).shards_of({"dive/b.avi"}) == [0]
    shard_path(cache, 0).unlink()
    made = extract(begin(dataset, cache), ignore)
    assert changed(made) == []
    hold(made, videos)


def test_a_file_with_the_same_frames_is_told_until_its_shard_is_made_again(root, tmp_path):
    """As by a tool that writes a comment into it: the cache stays the same to the runs on it."""
    videos, cache = tmp_path / "videos", tmp_path / "small.h5"
    shutil.copytree(root, videos)
    dataset = make_dataset(videos, list(CLIPS))
    first = extract(begin(dataset, cache), ignore)
    with (videos / "dive/a.avi").open("ab") as file:
        file.write(bytes(64))
    assert changed(first) == ["dive/a.avi"]
    shard_path(cache, 0).unlink()
    made = extract(begin(dataset, cache), ignore)
    assert changed(made) == []
    assert made.digest == first.digest
    (videos / "run/c.mp4").unlink()  # while others were extracted
    assert changed(made) == []


def test_a_cache_from_before_sizes_were_kept(root, tmp_path):
    """One of its shards is made again; to the runs on it it is the same."""
    cache, dataset = tmp_path / "small.h5", make_dataset(root, list(CLIPS))
    extract(begin(dataset, cache), ignore)
    cache.unlink()
    for shard in range(SHARDS):
        with h5py.File(shard_path(cache, shard), "a") as file:
            del file["videos/file_bytes"], file.attrs["digest"]
    made = extract(begin(dataset, cache), ignore)
    assert changed(made) == []
    shard_path(cache, 1).unlink()
    assert extract(begin(dataset, cache), ignore).digest == made.digest
