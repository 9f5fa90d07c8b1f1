"""The five answers, on looks, motion and guesses made so that the answer is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnact.cache.features import FeatureCache
from attnact.train.experiments.answers import (
    RATES,
    Seen,
    does_attention_help,
    does_the_frame_rate_matter,
    how_stable_is_it,
    what_does_lambda_do,
    where_does_it_look,
)
from attnact.train.experiments.by_video import row_videos
from attnact.train.experiments.grid import Grid
from attnact.train.experiments.table1 import NAMES
from attnact.train.scoring.looks import VideoMaps
from tests.made_rows import guesses, row
from tests.readback import is_picture

FOLDS = ["1", "2", "3", "4", "5", "6"]


@pytest.fixture(scope="module")
def cache(make_cache: Any, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Of six groups, the fewest that an interval takes."""
    made: FeatureCache = make_cache(tmp_path_factory.mktemp("six") / "small.h5", videos=18)
    return made


def number(cell: str) -> float:
    return float(cell.split()[0])


def moving(cache: FeatureCache, seed: int = 0) -> list[Any]:
    """Motion at one random location of each frame."""
    random = np.random.default_rng(seed)
    return [np.eye(49)[random.integers(49, size=video.frames)] for video in cache.rows]


def seen(cache: FeatureCache, folder: Path, maps: dict[int, list[Any]], wrong: Any) -> Seen:
    """Attention with these maps of every frame of every video, by seed, at all frame rates."""
    it = row(folder, cache, "lambda1", FOLDS, guesses(cache, wrong), seeds=len(maps))
    own = {
        seed: [VideoMaps(np.arange(len(m)), m.astype(np.float32)) for m in of_seed]
        for seed, of_seed in maps.items()
    }
    return Seen(it, dict.fromkeys(RATES, own), own)


def with_lambda_10(it: Seen) -> Seen:
    config = replace(it.row.config, attention_penalty=10.0)
    return Seen(replace(it.row, name="lambda10", config=config), it.at, it.own)


def test_attention_that_helps(cache: FeatureCache, tmp_path: Path) -> None:
    """Right everywhere, against baselines that are wrong everywhere."""
    every = np.arange(18)
    rows = [
        row(tmp_path, cache, name, FOLDS, guesses(cache, lambda seed, b=bad: b))
        for name, bad in zip(NAMES, [every] * 3 + [[]] * 3, strict=True)
    ]
    answer = does_attention_help(tmp_path, Grid(rows, []), cache)
    assert "Of 9 comparisons, attention is better in 9 and worse in 0" in answer.finding
    assert "in 0 this data does not tell" in answer.finding
    assert {line[-1] for line in answer.table[1:]} == {"100.00 (100.00 to 100.00)"}
    is_picture(tmp_path / "1-attention.png")
    turned = [*rows[3:], *rows[:3]]
    names = [r.name for r in rows]
    swapped = [
        type(r)(name, r.config, r.runs, r.values, r.entropy, r.spread)
        for name, r in zip(names, turned, strict=True)
    ]
    answer = does_attention_help(tmp_path, Grid(swapped, []), cache)
    assert "better in 0 and worse in 9" in answer.finding


def test_lambda_that_spreads(cache: FeatureCache, tmp_path: Path) -> None:
    """λ = 0 has its attention on a tenth of the locations, λ = 10 on half of them on average."""
    right, wrong = guesses(cache, lambda seed: []), guesses(cache, lambda seed: np.arange(9))
    rows = [
        row(tmp_path, cache, "lambda0", FOLDS, right),
        row(tmp_path, cache, "lambda10", FOLDS, wrong),
    ]
    answer = what_does_lambda_do(tmp_path, rows, cache)
    header, first, last = answer.table
    assert header[0] == "λ"
    assert (first[0], first[2], last[0]) == ("0", "", "10")
    assert number(last[2]) == -50  # points: nine of eighteen videos
    assert number(first[4]) == pytest.approx(10)
    assert number(last[4]) == pytest.approx(50)
    assert number(first[3]) == 2  # nats
    assert "λ = 0 90 % of the attention lies on 10 %" in answer.finding
    is_picture(tmp_path / "2-lambda.png")


def test_looking_where_something_moves(cache: FeatureCache, tmp_path: Path) -> None:
    motion = moving(cache)
    follows = seen(cache, tmp_path / "a", {0: motion, 1: motion}, lambda seed: [])
    answer = where_does_it_look(tmp_path, [follows], motion, cache)
    _, (_, same, shuffled, difference, _) = answer.table
    assert number(same) == pytest.approx(1)
    assert abs(number(shuffled)) < 0.05
    assert number(difference) > 0.9
    assert "the model with λ = 1 can be said" in answer.finding
    more = with_lambda_10(follows)
    text = where_does_it_look(tmp_path, [follows, more], motion, cache).finding
    assert "the models with λ = 1 and 10 can be said" in text
    away = [(1 - m) / 48 for m in motion]  # everywhere but there
    strays = seen(cache, tmp_path / "b", {0: away}, lambda seed: [])
    answer = where_does_it_look(tmp_path, [strays], motion, cache)
    assert number(answer.table[1][1]) == pytest.approx(-1)
    assert "no model can be said" in answer.finding
    is_picture(tmp_path / "3-motion.png")


def test_frame_rates(cache: FeatureCache, tmp_path: Path) -> None:
    """The same maps at 30 and 15 frames a second, others at 6."""
    maps, others = moving(cache), moving(cache, 1)
    one, other = (
        seen(cache, tmp_path / name, {0: m}, lambda seed: [])
        for name, m in (("a", maps), ("b", others))
    )
    mixed = Seen(one.row, {30.0: one.own, 15.0: one.own, 6.0: other.own}, one.own)
    answer = does_the_frame_rate_matter(tmp_path, [mixed], cache)
    found = {line[1]: number(line[2]) for line in answer.table[1:]}
    differences = {line[1]: number(line[4]) for line in answer.table[1:]}
    assert found["30 and 15"] == pytest.approx(1)
    assert abs(found["30 and 6"]) < 0.1
    assert abs(found["15 and 6"]) < 0.1
    assert f"of {one.name}: {min(found, key=lambda rates: differences[rates])}." in answer.finding
    is_picture(tmp_path / "4-frame-rate.png")


def test_slow_videos_have_one_frame_rate(make_cache: Any, tmp_path: Path) -> None:
    """At 12 frames a second the clips "at 30" and "at 15" are the same, those at 6 are others."""
    cache = make_cache(tmp_path / "slow.h5", videos=18, rate=lambda video: 12.0)
    maps = moving(cache)
    it = seen(cache, tmp_path / "a", {0: maps}, lambda seed: [])
    answer = does_the_frame_rate_matter(tmp_path, [it], cache)
    found = {line[1]: line[2] for line in answer.table[1:]}
    assert found["30 and 15"] == "none"
    assert number(found["30 and 6"]) == pytest.approx(1)


def test_stray_attention_that_goes_with_errors(cache: FeatureCache, tmp_path: Path) -> None:
    """Two models that look alike; both are wrong in the five videos in which they stray."""
    motion, stray = moving(cache), moving(cache, 1)
    bad = [1, 5, 9, 12, 16]
    maps = [stray[v] if v in bad else motion[v] for v in range(18)]
    it = seen(cache, tmp_path / "a", {0: maps, 1: maps}, lambda seed: bad)
    assert row_videos(it.row, cache).tolist() == list(range(18))
    answer = how_stable_is_it(tmp_path, [it], motion, cache)
    line = dict(zip(*answer.table, strict=True))
    assert line["accuracy %"] == "72.22 ± 0.00"
    assert number(line["maps of two seeds"]) == pytest.approx(1)
    assert abs(number(line["of two videos"])) < 0.05
    assert line["errors by quarter of agreement with motion, %"].split(", ")[0] == "100"
    assert number(line["stray when wrong"]) == 1
    is_picture(tmp_path / "5-stability.png")
    alone = seen(cache, tmp_path / "b", {0: motion}, lambda seed: [])
    assert how_stable_is_it(tmp_path, [alone], motion, cache).table[1][2:4] == ["", ""]


def test_maps_that_look_everywhere_alike(cache: FeatureCache, tmp_path: Path) -> None:
    """They agree with nothing, beside a model that looks somewhere and on its own."""
    motion = moving(cache)
    even = [np.full_like(m, 1 / 49) for m in motion]
    flat, follows = (
        seen(cache, tmp_path / name, {0: maps}, lambda seed: [1])
        for name, maps in (("a", even), ("b", motion))
    )
    both = [flat, with_lambda_10(follows)]
    answer = does_the_frame_rate_matter(tmp_path, both, cache)
    assert {cell for line in answer.table[1:4] for cell in line[2:]} == {"none"}
    assert "soft attention, λ = 10: " in answer.finding
    alone = does_the_frame_rate_matter(tmp_path, [flat], cache)
    assert "No maps can be compared" in alone.finding
    assert where_does_it_look(tmp_path, [flat], motion, cache).table[1][1:] == ["none"] * 4
    stable = how_stable_is_it(tmp_path, [flat], motion, cache).table[1]
    assert stable[-2:] == ["none, none, none, none", "none"]
    for text in (answer.finding, alone.finding, *map(str, (answer.table, stable))):
        assert "nan" not in text


def test_rows_without_a_common_seed(cache: FeatureCache, tmp_path: Path) -> None:
    """Of each row another seed failed: there are no pairs, and no change to tell."""
    right = guesses(cache, lambda seed: [])
    rows = []
    for seed, name in enumerate(("lambda0", "lambda1")):
        it = row(tmp_path, cache, name, FOLDS, right)
        rows.append(replace(it, runs={seed: it.runs[seed]}, values=it.values[:1]))
    assert what_does_lambda_do(tmp_path, rows, cache).table[2][2] == ""
    answer = does_attention_help(tmp_path, Grid(rows, []), cache)
    assert "Of 0 comparisons" in answer.finding
