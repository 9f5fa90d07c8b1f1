"""The page on the cache format, held against caches."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from attnact.cache.compact import to_float, to_uint8
from attnact.cache.feature_writer import CHUNK_FRAMES, CUBE_IN_FILE, ShardWriter
from attnact.cache.features import CUBE, SCHEMA, FeatureCache
from attnact.cache.shards import shard_path
from attnact.cache.tables import MOVED_TO, VideoRow
from attnact.vocabulary import Split
from tests.pages import blocks, page, rows


def kind(dtype: np.dtype) -> str:
    return "text" if h5py.check_string_dtype(dtype) else str(dtype)


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_the_tables_are_those_of_a_cache(make_cache, tmp_path, dtype):
    cache = make_cache(tmp_path / "clips.h5", dtype=dtype)
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
    if dtype == "float16":
        assert told.pop("scales") == ("float32", (cache.frames, 7, 7))
    else:
        assert told.pop("features")[1] == found["features"][1]
        assert found.pop("features")[0] == "uint8"
    assert told == found


def test_the_attributes_are_those_of_a_cache(cache):
    told = {name: type_ for name, type_, _ in rows("cache.md", "attribute |")}
    assert told.pop(MOVED_TO) == "text"  # here they were not
    with h5py.File(cache.path) as file:
        assert set(told) == set(file.attrs)
        assert kind(file.attrs.get_id("schema").dtype) == told["schema"]
        assert set(file["provenance"].attrs) <= set(page("cache.md").split("`"))
    assert f"schema {SCHEMA}." in page("cache.md")
    assert f'file.attrs["schema"] != {SCHEMA}' in page("cache.md")
    assert f"{Split.UNUSED} unused, {Split.TRAIN} train, {Split.TEST} test" in page("cache.md")


@pytest.mark.parametrize("row", rows("cache.md", "`--compression`"), ids=lambda row: row[0])
def test_the_filters_are_those_of_a_shard(row, tmp_path):
    compression = row[0].split()[0]
    writer = ShardWriter.claim(tmp_path / "00000.h5", compression, "uint8")
    assert writer is not None
    writer.append(np.ones((5, *CUBE), np.float16))
    writer.end_video(VideoRow(0))
    writer.close()
    with h5py.File(tmp_path / "00000.h5") as file:
        made = file["features"].id.get_create_plist()
        filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
        chunks = {name: file[name].chunks for name in CHUNK_FRAMES}
        assert chunks["features"] == (CHUNK_FRAMES["features"], *CUBE_IN_FILE) == (4, 1024, 7, 7)
        assert chunks["scales"] == (CHUNK_FRAMES["scales"], 7, 7) == (32, 7, 7)
        columns = set(file["videos"])
        assert "in chunks of 32" in page("cache.md")
    assert filters == ([] if row[1] == "none" else [int(row[1].split(",")[0])])
    told = page("cache.md").split("## The shards")[1].split("as above")[0]
    assert columns <= set(told.split("`"))


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_the_code_reads_a_cache(make_cache, tmp_path, monkeypatch, capsys, dtype):
    monkeypatch.chdir(tmp_path)
    Path("features").mkdir()
    cache = make_cache(Path("features/clips.h5"), dtype=dtype)
    (code,) = blocks("cache.md", "python")
    names: dict[str, Any] = {}
    exec(code, names)
    test = np.flatnonzero(cache.folds["1"] == Split.TEST)[0]
    first, count = cache.first_frames[test], cache.rows[test].frames
    told = f"{cache.paths[test]} {cache.classes[cache.labels[test]]} ({count}, 1024,"
    assert capsys.readouterr().out.startswith(told)
    found = np.moveaxis(names["cubes"], 1, -1)
    np.testing.assert_allclose(found, cache.read(first, count), rtol=1e-6)


def test_the_formula_of_uint8():
    """As the page has it, in float64."""
    assert "*s* (*q* / 255)²" in page("cache.md")
    x = np.random.default_rng(0).exponential(size=(2, *CUBE)).astype(np.float32)
    q, s = to_uint8(x)
    expected = s[..., None].astype(np.float64) * (q / 255) ** 2
    np.testing.assert_allclose(to_float(to_uint8(x)), expected, rtol=1e-6)


def test_a_missing_shard_reads_as_zeros_but_not_here(make_cache, tmp_path):
    cache: FeatureCache = make_cache(tmp_path / "clips.h5")
    shard_path(cache.path, 1).unlink()
    with h5py.File(cache.path) as file:
        assert (file["features"][int(cache.first_frames[5])] == 0).all()
    assert any(problem and "no such file" in problem for problem in cache.verify())
