"""Tables for people: means and spreads, columns that stand under each other, what they are of."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnact.cache.features import FeatureCache
from attnact.train.config import resolve
from attnact.train.experiments.tables import about, listed, markdown, mean_sd

TABLE = [["λ", "accuracy %"], ["0", "62.50 ± 17.68"], ["0.5", "33.33"]]


@given(st.lists(st.floats(0, 100), min_size=2, max_size=9))
def test_mean_sd(values: list[float]) -> None:
    mean, _, sd = mean_sd(values).partition(" ± ")
    assert float(mean) == pytest.approx(statistics.fmean(values), abs=0.00501)
    assert float(sd) == pytest.approx(statistics.stdev(values), abs=0.00501)


def test_one_value_has_no_spread() -> None:
    assert mean_sd([71.234]) == "71.23"


def test_markdown_columns() -> None:
    lines = markdown(TABLE).splitlines()
    assert len(set(map(len, lines))) == 1  # also reads well as text
    assert set(lines[1]) == {"|", "-"}
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [cells[0], *cells[2:]] == TABLE
    assert len(cells[1]) == len(TABLE[0])


def test_none_is_a_blank() -> None:
    assert mean_sd([]) == ""


def test_about_says_what_differs_from_the_recipe(cache: FeatureCache) -> None:
    text = about(cache, resolve({"recipe": "released", "batch_size": 7}, cache), ["1", "2"])
    for words in ("small, folds 1, 2", "random (seed 0)", "recipe released but batch_size 7"):
        assert words in text
    assert "small, fold 1; backbone" in about(cache, resolve({}, cache), ["1"])
    assert "recipe paper;" in about(cache, resolve({}, cache), ["1"])
    assert "penalty form mean" in text


def test_about_says_how_folds_become_one_number(cache: FeatureCache) -> None:
    """As `grid.over_folds` does it: the test videos of "wide" hold those of "3"."""
    config = resolve({}, cache)
    assert "folds 1, 2, their test videos together;" in about(cache, config, ["1", "2"])
    assert "folds 3, wide, the mean over them;" in about(cache, config, ["3", "wide"])


def test_listed() -> None:
    assert [listed(["a", "b", "c"][:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
