"""The index that ends an extraction: written when it must be, and else left as it is."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from attnact.cache.feature_index import write_index
from attnact.cache.features import SCHEMA, FeatureCache
from attnact.cache.shards import shard_path
from attnact.errors import CacheError
from attnact.extract import index, making, pipeline
from attnact.extract.datasets.base import Dataset
from attnact.extract.pipeline import describe, extract, frames_left
from attnact.extract.plan import read_plan
from attnact.machine.sealed import is_broken, unsealed
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

LATER = ("dtype", "runtime", "precision")


pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def dataset(root: Path) -> Dataset:
    return make_dataset(root, list(CLIPS))


def test_a_finished_cache_is_not_made_again(dataset, tmp_path, monkeypatch):
    cache = tmp_path / "small.h5"
    extract(begin(dataset, cache), ignore)
    before = contents(cache.parent)
    monkeypatch.setattr(making, "Readers", None)
    monkeypatch.setattr(pipeline, "probe_all", None)
    extraction = begin(dataset, cache)
    assert frames_left(extraction) == 0
    assert f"all {SHARDS} shards of {cache} are there" in describe(extraction)
    monkeypatch.setattr(index, "versions", lambda *packages: {"torch": "a later one"})
    extract(extraction, ignore)
    assert contents(cache.parent) == before


def change(dataset: Dataset, what: str) -> Dataset:
    videos, sides = dataset.videos, dataset.folds["1"]
    return replace(
        dataset,
        **{
            "data set": {"name": "ucf11"},
            "classes": {"classes": ("dive", "walk")},
            "order": {"classes": dataset.classes[::-1]},
            "labels": {"videos": (replace(videos[0], labels=(1,)), *videos[1:])},
            "groups": {"videos": (replace(videos[0], group="group 1"), *videos[1:])},
            "folds": {"folds": {"1": sides[::-1], "2": sides}},
            "sides": {"folds": {"1": [*sides[1:], *sides[:1]]}},
        }[what],
    )


@pytest.mark.parametrize(
    "what", ["data set", "classes", "order", "labels", "groups", "folds", "sides"]
)
def test_a_finished_cache_is_not_listed_otherwise(dataset, tmp_path, what):
    cache = tmp_path / "small.h5"
    extract(begin(dataset, cache), ignore)
    before, other = contents(cache.parent), change(dataset, what)
    told = {
        "data set": r"another data set \(folder then, ucf11 now\)",
        "classes": r"other classes \(such as run\)",
        "order": r"other classes \(in another order\)",
        "folds": r"other folds \(1 then; 1, 2 now\)",
        "sides": r"other folds \(such as of dive/a.avi\)",
    }
    first = rf"other {what} \(such as of {dataset.paths[0]}\)"
    told = f"small.h5: made with {told.get(what, first)}; delete this one file"
    with pytest.raises(CacheError, match=told):
        begin(other, cache)
    assert contents(cache.parent) == before
    cache.unlink()
    extract(begin(other, cache), ignore)
    assert len(contents(cache.parent)) == len(before)
    begin(other, cache)


def test_nor_is_one_of_which_a_shard_is_to_be_made_again(dataset, tmp_path):
    """As `cache verify` has one delete a shard that changed."""
    cache = tmp_path / "small.h5"
    first = extract(begin(dataset, cache), ignore)
    shard_path(cache, 1).unlink()
    with pytest.raises(CacheError, match=r"small\.h5: made with other folds"):
        begin(change(dataset, "folds"), cache)
    assert extract(begin(dataset, cache), ignore).digest == first.digest


def test_shards_that_are_all_made_again(dataset, tmp_path, monkeypatch):
    """Their folder was deleted, and it is another day: to the runs on it the cache is the same."""
    cache = tmp_path / "small.h5"
    first = extract(begin(dataset, cache), ignore)
    shutil.rmtree(cache.with_suffix(".shards"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1609459200")
    with pytest.raises(CacheError, match=r"small\.h5: made with other folds"):
        begin(change(dataset, "folds"), cache)
    assert extract(begin(dataset, cache), ignore).digest == first.digest


def test_who_comes_last_does_not_list_otherwise(dataset, tmp_path):
    """Two processes begin at the same time, with other folds."""
    cache = tmp_path / "small.h5"
    ours, theirs = begin(dataset, cache), begin(change(dataset, "folds"), cache)
    first = extract(ours, ignore)
    with pytest.raises(CacheError, match=r"small\.h5: made with other folds"):
        extract(theirs, ignore)
    assert FeatureCache(cache).digest == first.digest


def test_a_finished_cache_from_before_there_were_choices_is_left_alone(dataset, tmp_path):
    cache = tmp_path / "small.h5"
    made = extract(begin(dataset, cache), ignore)
    old = {name: made.provenance[name] for name in made.provenance if name not in LATER}
    write_index(cache, range(SHARDS), index.listing_of(dataset, read_plan(cache)), old)
    before = cache.read_bytes()
    extract(begin(dataset, cache), ignore)
    assert cache.read_bytes() == before
    with pytest.raises(CacheError, match="made with other folds"):
        begin(change(dataset, "folds"), cache)


def test_videos_that_were_moved(dataset, tmp_path, capsys):
    """To the runs on it the cache is the same, and so is every byte of it but where they are."""
    cache, moved = tmp_path / "small.h5", tmp_path / "moved"
    first = extract(begin(dataset, cache), ignore)
    shutil.copytree(dataset.root, moved)
    for root in (moved, dataset.root):
        again = extract(begin(replace(dataset, root=root), cache), ignore)
        assert f"small.h5: its videos are in {root.resolve()} now" in capsys.readouterr().err
        assert (again.root, again.digest) == (root.resolve(), first.digest)
        assert again.provenance == first.provenance
        hold(again, moved)
        assert not is_broken(cache)
    with h5py.File(cache) as file:
        assert "moved_to" not in file.attrs


def test_a_shard_that_is_made_again_where_the_videos_are_now(dataset, tmp_path):
    cache, moved = tmp_path / "small.h5", tmp_path / "moved"
    first = extract(begin(dataset, cache), ignore)
    shutil.copytree(dataset.root, moved)
    shard_path(cache, 1).unlink()
    again = extract(begin(replace(dataset, root=moved), cache), ignore)
    assert (again.root, again.digest) == (moved.resolve(), first.digest)
    hold(again, moved)


def test_the_index_is_of_the_shards_that_are_there(root, tmp_path):
    """A video was mended, and its shard deleted, as the page on troubleshooting says."""
    videos, cache = tmp_path / "videos", tmp_path / "small.h5"
    shutil.copytree(root, videos)
    whole = (videos / "run/d.avi").read_bytes()
    (videos / "run/d.avi").write_bytes(whole[: len(whole) // 2])
    dataset = make_dataset(videos, list(CLIPS))
    assert len(extract(begin(dataset, cache), ignore).failures) == 1
    (videos / "run/d.avi").write_bytes(whole)
    shard_path(cache, 1).unlink()
    assert read_plan(cache).shards_of({"run/d.avi"}) == [1]
    made = remade(dataset, cache)
    assert made.failures == []
    hold(made, videos)


@pytest.mark.parametrize("change", ["fewer videos", "more", "other names", "other settings"])
def test_an_index_of_shards_that_are_gone_is_of_no_account(
    dataset, root, tmp_path, monkeypatch, change
):
    cache, paths, config = tmp_path / "small.h5", list(CLIPS), {}
    extract(begin(dataset, cache), ignore)
    shutil.rmtree(cache.with_suffix(".shards"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1609459200")  # it is another day
    if change == "more":
        (tmp_path / "dive").symlink_to(root / "dive")
        (tmp_path / "run").symlink_to(root / "run")
        (tmp_path / "zoom").symlink_to(root / "dive")
        dataset = make_dataset(tmp_path, [*paths, "zoom/a.avi"])
    elif change == "fewer videos":
        dataset = make_dataset(root, paths[:-1])
    elif change == "other names":
        (tmp_path / "dive").symlink_to(root / "dive")
        (tmp_path / "run").symlink_to(root / "run")
        (tmp_path / "dive2").symlink_to(root / "dive")
        dataset = make_dataset(tmp_path, ["dive2/a.avi", *paths[1:]])
    else:
        config = {"compression": "gzip"}
    with pytest.raises(KeyboardInterrupt):
        extract(begin(dataset, cache, **config), stop_after(1, interrupt))
    made = remade(dataset, cache, **config)
    assert made.paths == [video.path for video in dataset.videos]
    assert made.provenance["compression"] == config.get("compression", "zstd")
    hold(made, dataset.root)


def test_a_cache_of_a_newer_attnact_is_left_alone(dataset, tmp_path):
    cache = tmp_path / "small.h5"
    extract(begin(dataset, cache), ignore)
    image = io.BytesIO(unsealed(cache.read_bytes()))
    with h5py.File(image, "a") as file:
        file.attrs["schema"] = SCHEMA + 1
    cache.write_bytes(image.getvalue())
    with pytest.raises(CacheError, match="written by a newer attnact"):
        begin(dataset, cache)
    assert cache.read_bytes() == image.getvalue()
