"""One plan for every process that works on a cache, kept beside its shards."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnact.cache.shards import shard_path
from attnact.errors import CacheError
from attnact.extract.plan import (
    GUESSED_FRAMES,
    SHARD_FRAMES,
    Plan,
    Settings,
    check_settings,
    divide,
    keep_plan,
    plan_path,
    read_plan,
)

SETTINGS = Settings("googlenet", "IMAGENET1K_V1", "1378be20", "squash", "pyav", "zstd")
PLAN = Plan(
    settings=SETTINGS,
    paths=("dive/a.avi", "dive/ü & b.avi", "run/c.avi"),
    frames=(1500, 0, 1000),
    starts=(0, 2),
    date="2026-01-01T00:00:00+00:00",
    command="attnact features folder",
)
OTHERS = {
    "backbone": "bvlc_googlenet",
    "weights_digest": "abcdef",
    "resize": "crop",
    "decoder": "decord",
    "compression": "none",
    "dtype": "uint8",
    "runtime": "openvino",
    "precision": "bfloat16",
}


@given(st.lists(st.one_of(st.integers(0, 400), st.integers(0, 5000)), max_size=60))
def test_divide(frames: list[int]) -> None:
    starts = divide(frames)
    plan = replace(PLAN, paths=tuple(map(str, range(len(frames)))), starts=starts)
    shards = [plan.shard(shard) for shard in range(len(starts))]
    assert [video for shard in shards for video in shard] == list(range(len(frames)))
    assert all(shards) or not frames
    for shard, following in zip(shards, [*shards[1:], None], strict=True):
        counts = [frames[video] or GUESSED_FRAMES for video in shard]
        assert sum(counts) <= SHARD_FRAMES or len(counts) == 1
        if following is not None:  # a shard ends only where the next video would overfill it
            assert sum(counts) + (frames[following[0]] or GUESSED_FRAMES) > SHARD_FRAMES


def test_no_videos_make_one_empty_shard() -> None:
    assert divide([]) == (0,)
    assert list(replace(PLAN, paths=(), starts=(0,)).shard(0)) == []


def test_missing_shards_and_what_they_take(tmp_path: Path) -> None:
    cache = tmp_path / "small.h5"
    assert PLAN.missing(cache, PLAN.paths) == [0, 1]
    assert (PLAN.frames_in([0, 1]), PLAN.frames_in([1])) == (2500, 1000)
    keep_plan(cache, PLAN)
    shard_path(cache, 0).touch()
    assert PLAN.missing(cache, PLAN.paths) == [1]
    # Uncompressed, a cube is 98 KiB.
    bare = replace(PLAN, settings=replace(SETTINGS, compression="none"))
    assert bare.bytes_in([1]) == 1000 * 7 * 7 * 1024 * 2
    small = replace(PLAN, settings=replace(SETTINGS, dtype="uint8"))
    assert 1000 * 12.5 * 1024 < small.bytes_in([1]) < 0.65 * PLAN.bytes_in([1])
    # Of random weights it is denser: 57 KiB were measured, with the usual compression.
    random, trained = (
        replace(PLAN, settings=replace(SETTINGS, weights=weights, compression="zstd"))
        for weights in ("random (seed 0)", "IMAGENET1K_V1")
    )
    assert random.bytes_in([1]) > 1000 * 57 * 1024 > 2 * trained.bytes_in([1])
    assert replace(random, settings=replace(bare.settings, weights="random")).bytes_in(
        [1]
    ) == bare.bytes_in([1])


def test_a_plan_reads_back(tmp_path: Path) -> None:
    cache = tmp_path / "small.h5"
    assert read_plan(cache) is None
    assert keep_plan(cache, PLAN) == PLAN
    assert read_plan(cache) == PLAN
    assert list(plan_path(cache).parent.iterdir()) == [plan_path(cache)]


def test_a_second_process_follows_the_first_ones_plan(tmp_path: Path) -> None:
    cache = tmp_path / "small.h5"
    keep_plan(cache, PLAN)
    later = replace(PLAN, frames=(1, 2, 3), starts=(0,), date="later", command="another")
    assert keep_plan(cache, later) == PLAN
    assert read_plan(cache) == PLAN


@pytest.mark.parametrize(("name", "value"), OTHERS.items())
def test_other_settings_are_refused(tmp_path: Path, name: str, value: str) -> None:
    cache = tmp_path / "small.h5"
    keep_plan(cache, PLAN)
    other = replace(PLAN, settings=replace(SETTINGS, **{name: value}))
    with pytest.raises(CacheError, match=f"small.h5: begun with {name} .*, now asked for {value}"):
        keep_plan(cache, other)
    assert read_plan(cache) == PLAN


def test_weights_are_told_by_their_digest(tmp_path: Path) -> None:
    cache = tmp_path / "small.h5"
    keep_plan(cache, PLAN)
    renamed = replace(SETTINGS, weights="a copy of them.pth")
    assert keep_plan(cache, replace(PLAN, settings=renamed)) == PLAN
    other = replace(renamed, weights_digest="abcdef")
    told = "begun with weights IMAGENET1K_V1, now asked for a copy of them.pth"
    with pytest.raises(CacheError, match=told):
        keep_plan(cache, replace(PLAN, settings=other))


def test_the_way_out_of_other_settings(tmp_path: Path) -> None:
    cache = tmp_path / "small.h5"
    check_settings(cache, PLAN, SETTINGS)
    with pytest.raises(CacheError) as caught:
        check_settings(cache, PLAN, replace(SETTINGS, resize="crop"))
    assert "\n" not in str(caught.value)
    assert f"delete {cache} and {plan_path(cache).parent}" in str(caught.value)


VIDEOS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0, 100, 1500, 3000]))
EMPTY = replace(PLAN, paths=(), frames=(), starts=())


@given(st.lists(VIDEOS, max_size=5))
def test_a_plan_only_grows(asked: list[dict[str, int]]) -> None:
    """Whatever is asked for, one after the other: what was planned stays as it was."""
    plan = EMPTY
    for videos in asked:
        new = {path: frames for path, frames in videos.items() if path not in plan.places}
        before, plan = plan, plan.with_videos(list(new), list(new.values()))
        shards = [plan.shard(shard) for shard in range(len(plan.starts))]
        assert [list(it) for it in shards[: len(before.starts)]] == [
            list(before.shard(shard)) for shard in range(len(before.starts))
        ]
        assert plan.paths[: len(before.paths)] == before.paths
        assert plan.frames[: len(before.frames)] == before.frames
        assert [place for shard in shards for place in shard] == list(range(len(plan.paths)))
        assert all(shards)
        assert len(set(plan.paths)) == len(plan.paths) == len(plan.frames)
        assert set(plan.paths) == {*before.paths, *videos}


def test_more_videos_go_behind_those_that_there_are(tmp_path: Path) -> None:
    cache = tmp_path / "small.h5"
    keep_plan(cache, PLAN)
    fewer = replace(PLAN, paths=PLAN.paths[1:], frames=PLAN.frames[1:], starts=(0,))
    assert keep_plan(cache, fewer) == PLAN
    other = replace(PLAN, paths=("a/0.avi", PLAN.paths[2]), frames=(7, 1000), date="later")
    grown = replace(
        PLAN, paths=(*PLAN.paths, "a/0.avi"), frames=(1500, 0, 1000, 7), starts=(0, 2, 3)
    )
    assert keep_plan(cache, other) == grown == read_plan(cache)
    assert list(plan_path(cache).parent.iterdir()) == [plan_path(cache)]


def test_a_video_that_is_planned_again_stands_at_its_last_place(tmp_path: Path) -> None:
    cache, again = tmp_path / "small.h5", PLAN.paths[0]
    keep_plan(cache, PLAN)
    grown = PLAN.with_videos([again], [1600])
    assert (grown.shards_of([again]), PLAN.shards_of([again])) == ([2], [0])
    assert grown.shards_of(PLAN.paths) == [0, 1, 2]
    assert keep_plan(cache, grown) == grown == read_plan(cache)
    assert keep_plan(cache, PLAN) == grown  # of a process that knew nothing of it
    assert keep_plan(cache, PLAN.with_videos([again], [1600])) == grown  # nor of each other


def test_processes_that_want_other_videos_at_once_share_a_plan(tmp_path: Path) -> None:
    cache = tmp_path / "small.h5"
    wanted = [EMPTY.with_videos([f"{i}.avi", "all.avi"], [9, 9]) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda plan: keep_plan(cache, plan), wanted))
    whole = read_plan(cache)
    assert whole is not None
    assert sorted(whole.paths) == sorted({path for plan in wanted for path in plan.paths})
    for plan, own in zip(kept, wanted, strict=True):
        assert whole.paths[: len(plan.paths)] == plan.paths
        assert whole.starts[: len(plan.starts)] == plan.starts
        assert set(own.paths) <= set(plan.paths)


def damage(**changes: object) -> str:
    plan = json.loads(json.dumps(PLAN, default=vars))
    return json.dumps({key: value for key, value in {**plan, **changes}.items() if value != "gone"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "\udcff",  # no UTF-8
        damage()[:-20],
        damage(starts="gone"),
        damage(frames=["many"]),
        damage(settings={"backbone": "googlenet"}),
        damage(settings={**vars(SETTINGS), "unknown": 1}),
    ],
)
def test_a_damaged_plan(tmp_path: Path, text: str) -> None:
    cache = tmp_path / "small.h5"
    plan_path(cache).parent.mkdir()
    plan_path(cache).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        CacheError,
        match=r"plan\.json: damaged, .*; delete the folder .*small\.shards",
    ):
        read_plan(cache)


@pytest.mark.parametrize(("old", "new"), [("1500", "1501"), ("c.avi", "d.avi"), ("squash", "crop")])
def test_a_plan_that_changed_is_refused(tmp_path: Path, old: str, new: str) -> None:
    cache = tmp_path / "small.h5"
    keep_plan(cache, PLAN)
    path = plan_path(cache)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(CacheError, match=r"plan\.json: damaged, .*; delete the folder"):
        read_plan(cache)


@pytest.mark.parametrize("frames", ["[1e999]", "[" * 100_000, '"x"', "[null]"])
def test_frames_that_cannot_be_are_refused(tmp_path: Path, frames: str) -> None:
    cache = tmp_path / "small.h5"
    keep_plan(cache, PLAN)
    content = json.loads(plan_path(cache).read_text(encoding="utf-8"))
    text = json.dumps({**content, "frames": "HERE", "digest": ""}).replace('"HERE"', frames)
    plan_path(cache).write_text(text.replace(', "digest": ""', ""), encoding="utf-8")
    with pytest.raises(CacheError, match=r"plan\.json: damaged"):
        read_plan(cache)


def test_a_plan_from_before_there_was_a_choice_is_of_torch_in_float32(tmp_path: Path) -> None:
    cache = tmp_path / "small.h5"
    keep_plan(cache, PLAN)
    kept = json.loads(plan_path(cache).read_text())
    del kept["settings"]["runtime"], kept["settings"]["precision"], kept["digest"]
    plan_path(cache).write_text(json.dumps(kept))
    old = read_plan(cache)
    assert old is not None
    assert (old.settings.runtime, old.settings.precision) == ("torch", "float32")
