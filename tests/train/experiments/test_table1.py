"""Table 1: its rows, the paper's figures beside them, and the paired comparison."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attnact.cache.features import FeatureCache
from attnact.released.importing import import_released
from attnact.train.config import TrainConfig, resolve
from attnact.train.experiments.by_video import compare, right_of, row_videos
from attnact.train.experiments.grid import Grid
from attnact.train.experiments.rows import Row
from attnact.train.experiments.table1 import (
    NAMES,
    PAPER,
    departures,
    differences,
    how_sure,
    table1_rows,
    table1_table,
    write_table1,
)
from attnact.train.scoring.scores import metric
from attnact.vocabulary import Split
from tests.made_rows import guesses, row
from tests.readback import is_picture, read_csv


@pytest.fixture(scope="module")
def cache(make_cache: Any, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Of six groups, the fewest that an interval takes."""
    made: FeatureCache = make_cache(tmp_path_factory.mktemp("six") / "small.h5", videos=18)
    return made


def test_the_six_rows() -> None:
    rows = table1_rows(TrainConfig(fold="1", lstm_layers=2, batch_size=7))
    assert list(rows) == list(NAMES)
    assert [(r.model, r.attention_penalty) for r in rows.values()] == [
        ("softmax", 0), ("average", 0), ("max", 0),
        ("attention", 0), ("attention", 1), ("attention", 10),
    ]  # fmt: skip
    assert {(r.lstm_layers, r.batch_size, r.fold) for r in rows.values()} == {(2, 7, "1")}


def test_the_papers_figures_stand_beside_its_data_sets() -> None:
    """Spot checks of Table 1 of the paper."""
    assert (PAPER["ucf11"][3], PAPER["hmdb51"][1], PAPER["hollywood2"][5]) == (84.96, 40.52, 42.92)
    configs = table1_rows(TrainConfig())
    found = Grid([Row(name, configs[name], {}, [0.5], [], []) for name in ("max", "lambda10")], [])
    table = table1_table(found, "accuracy", "hmdb51")
    assert table[0] == ["model", "accuracy %", "seeds", "the paper's accuracy %"]
    assert table[1:] == [
        ["max-pooled LSTM", "50.00", "1", "37.58"],
        ["soft attention, λ = 10", "50.00", "1", "39.87"],
    ]
    assert [line[-1] for line in table1_table(found, "accuracy", "mine")[1:]] == ["", ""]


def test_a_known_difference(cache: FeatureCache, tmp_path: Path) -> None:
    """Six folds test all 18 videos: the baseline misses two of them with seed 0, one with 1."""
    folds = ["1", "2", "3", "4", "5", "6"]
    first = row(tmp_path, cache, "lambda1", folds, guesses(cache, lambda seed: []))
    every = row_videos(first, cache)
    missed = [every[:2], every[2:3]]
    second = row(tmp_path, cache, "average", folds, guesses(cache, lambda seed: missed[seed]))
    assert right_of(second, 0, cache).tolist() == [0, 0, *[1] * 16]
    found = compare(first, second, cache)
    assert found.value == pytest.approx((2 / 18 + 1 / 18) / 2)
    assert found.low >= 0
    assert found.high < 1
    assert found.value == pytest.approx(np.mean(first.values) - np.mean(second.values))
    same = compare(first, first, cache)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_video_of_two_folds_counts_once(cache: FeatureCache, tmp_path: Path) -> None:
    """The test videos of "wide" hold those of "5"; there the model is right in one fold only."""
    inner = np.flatnonzero(cache.folds["5"] == Split.TEST)
    calls = iter([[], inner])
    found = row(
        tmp_path, cache, "max", ["5", "wide"], guesses(cache, lambda seed: next(calls)), seeds=1
    )
    every = row_videos(found, cache)
    assert every.tolist() == np.flatnonzero(cache.folds["wide"] == Split.TEST).tolist()
    expected = np.where(np.isin(every, inner), 0.5, 1.0)
    assert right_of(found, 0, cache).tolist() == expected.tolist()


def test_several_classes(multi_label_cache: FeatureCache, tmp_path: Path) -> None:
    cache, random = multi_label_cache, np.random.default_rng(0)
    good = row(tmp_path, cache, "lambda0", ["wide"], lambda s, v: cache.labels[v] + 0.0)
    bad = row(tmp_path, cache, "softmax", ["wide"], lambda s, v: random.random((len(v), 3)))
    found = compare(good, bad, cache)
    assert found.value == pytest.approx(1 - np.mean(bad.values))
    assert metric(cache.labels + 0.0, cache.labels) == 1


def test_only_rows_that_are_there_are_compared(cache: FeatureCache, tmp_path: Path) -> None:
    right = guesses(cache, lambda seed: [])
    rows = [row(tmp_path, cache, name, ["1"], right) for name in ("average", "lambda0", "lambda10")]
    found = [(it.row, it.baseline) for it in differences(Grid(rows, []), cache)]
    assert found == [("lambda0", "average"), ("lambda10", "average")]


def data(name: str, **provenance: str) -> Any:
    """A cache of this data set by the paper's backbone, as far as it is asked here."""
    made = {"backbone": "bvlc_googlenet", "weights_are_random": "false", **provenance}
    folds = dict.fromkeys(["1", "2"])
    random = made["weights_are_random"] == "true"
    return SimpleNamespace(
        name=name, path=name, folds=folds, failures=[], provenance=made, random_weights=random
    )


def test_what_is_not_as_in_the_paper(cache: FeatureCache) -> None:
    def of(cache: Any, folds: tuple[str, ...] = ("1",), **choices: Any) -> str:
        return departures(cache, resolve({"fold": "1", **choices}, cache), folds)

    assert of(data("hmdb51")) == of(data("hollywood2")) == ""
    assert of(data("hmdb51"), ("1", "2")).endswith(": the paper used the first fold alone.")
    assert "the recipe is released" in of(data("hmdb51"), recipe="released")
    assert of(data("hmdb51"), lstm_layers=1, attention="context").endswith(
        ": attention and lstm_layers are not the recipe's."
    )
    assert "never published" in of(data("ucf11"))
    lost = data("hollywood2")
    lost.failures = [("a.avi", "truncated")]
    assert of(lost) == "Not as in the paper: 1 video could not be read."
    text = of(cache)
    for words in ("the backbone is googlenet", "random", "the data set is another"):
        assert words in text


def test_imported_files_are_not_said_to_be_what_they_are_not(released: Path) -> None:
    """Their split is theirs, and which backbone made them is not written in them."""
    unknown = "unknown (released files)"
    theirs = data("ucf11", backbone=unknown, weights_are_random=unknown, source="/data/ucf11")
    text = departures(theirs, resolve({}, theirs), ["1"])
    assert text == "Not as in the paper: what made the features is not known."
    provenance = import_released(released, released.parent / "c.h5", "ucf11", "c").provenance
    assert set(theirs.provenance.items()) & set(provenance.items()) >= {
        ("backbone", unknown),
        ("weights_are_random", unknown),
    }
    assert "source" in provenance


def test_how_sure_an_interval_is(cache: FeatureCache, tmp_path: Path) -> None:
    right = guesses(cache, lambda seed: [])
    two = Grid([row(tmp_path / "two", cache, "max", ["1"], right)], [])
    one = Grid([row(tmp_path / "one", cache, "max", ["1"], right, seeds=1)], [])
    assert "fewer than 6 groups give no interval" in how_sure(two, cache, ["1"])
    assert "one seed" not in how_sure(two, cache, ["1", "2"])
    assert "one seed" in how_sure(one, cache, ["1", "2"])
    assert "counts once" not in how_sure(two, cache, ["1", "2"])
    assert "counts once" in how_sure(two, cache, ["5", "wide"])


def test_files(cache: FeatureCache, tmp_path: Path) -> None:
    right = guesses(cache, lambda seed: [])
    folds = ["1", "2", "3", "4", "5", "6"]
    rows = [row(tmp_path / "runs", cache, name, folds, right) for name in NAMES]
    text = write_table1(tmp_path, cache, Grid(rows, []), resolve({}, cache), folds)
    assert len(read_csv(tmp_path / "table1.csv")) == 7
    assert len(read_csv(tmp_path / "differences.csv")) == 10
    is_picture(tmp_path / "table1.png")
    assert (tmp_path / "table1.md").read_text() in text
    for words in (
        "average-pooled LSTM",
        "100.00 ± 0.00",
        "0.00 (0.00 to 0.00)",
        "Not as in the paper",
    ):
        assert words in text
    none = write_table1(tmp_path / "none", cache, Grid([], []), resolve({}, cache), ["1"])
    assert "see the failures" in none
