"""The page on the cache format, held against caches."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from pages import blocks, page, rows

from attnact.feature_writer import CHUNK_FRAMES, ShardWriter
from attnact.features import CUBE, SCHEMA, FeatureCache, VideoRow, shard_path
from attnact.vocabulary import Split


def kind(dtype: np.dtype) -> str:
    return "text" if h5py.check_string_dtype(dtype) else str(dtype)


def test_the_tables_are_those_of_a_cache(cache):
    wanted = {name: (type_, shape) for name, type_, shape, _ in rows("cache.md", "name |")}
    with h5py.File(cache.path) as file:
        sizes = {"videos": 12, "frames": cache.frames, "classes": 3, "shards": 3, "failures": 0}
        found = {}

        def add(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and not name.startswith("folds/"):
                found[name] = (kind(item.dtype), item.shape)

        file.visititems(add)
        found["folds/1"] = (kind(file["folds/1"].dtype), file["folds/1"].shape)
    told = {}
    for name, (type_, shape) in wanted.items():
        words = shape.strip("()").split(", ")
        told[name] = (type_, tuple(sizes[word] if word in sizes else int(word) for word in words))
    assert told == found


def test_the_attributes_are_those_of_a_cache(cache):
    told = {name: type_ for name, type_, _ in rows("cache.md", "attribute |")}
    with h5py.File(cache.path) as file:
        assert set(told) == set(file.attrs)
        assert kind(file.attrs.get_id("schema").dtype) == told["schema"]
        assert set(file["provenance"].attrs) <= set(page("cache.md").split("`"))
    assert f"schema {SCHEMA}." in page("cache.md")
    assert f"{Split.UNUSED} unused, {Split.TRAIN} train, {Split.TEST} test" in page("cache.md")


@pytest.mark.parametrize("row", rows("cache.md", "`--compression`"), ids=lambda row: row[0])
def test_the_filters_are_those_of_a_shard(row, tmp_path):
    compression = row[0].split()[0]
    writer = ShardWriter.claim(tmp_path / "00000.h5", compression)
    assert writer is not None
    writer.append(np.ones((5, *CUBE), np.float16))
    writer.end_video(VideoRow(0))
    writer.close()
    with h5py.File(tmp_path / "00000.h5") as file:
        made = file["features"].id.get_create_plist()
        filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
        assert file["features"].chunks == (CHUNK_FRAMES, *CUBE) == (4, 7, 7, 1024)
        columns = set(file["videos"])
    assert filters == ([] if row[1] == "none" else [int(row[1].split(",")[0])])
    told = page("cache.md").split("## The shards")[1].split("as above")[0]
    assert columns <= set(told.split("`"))


def test_the_code_reads_a_cache(make_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("features").mkdir()
    cache = make_cache(Path("features/clips.h5"))
    (code,) = blocks("cache.md", "python")
    exec(code, {})
    test = np.flatnonzero(cache.folds["1"] == Split.TEST)[0]
    told = f"{cache.paths[test]} {cache.classes[cache.labels[test]]} ({cache.rows[test].frames}, 7,"
    assert capsys.readouterr().out.startswith(told)


def test_a_missing_shard_reads_as_zeros_but_not_here(make_cache, tmp_path):
    cache: FeatureCache = make_cache(tmp_path / "clips.h5")
    shard_path(cache.path, 1).unlink()
    with h5py.File(cache.path) as file:
        assert (file["features"][int(cache.first_frames[5])] == 0).all()
    assert any(problem and "no such file" in problem for problem in cache.verify())
