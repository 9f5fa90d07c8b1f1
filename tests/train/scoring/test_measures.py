"""Intervals and trends: against SciPy, scikit-learn and data whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import roc_auc_score

from attnact.train.scoring import measures
from attnact.train.scoring.measures import (
    FEWEST,
    LEVEL,
    Interval,
    bootstrap,
    bootstrap_mean,
    error_by_quartile,
    error_trend,
    paired_difference,
    paired_precision_difference,
)
from attnact.train.scoring.scores import metric

EDGES = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def test_mean_as_scipy_has_it() -> None:
    values = random(300) ** 3
    found = bootstrap_mean(values)
    other = scipy_bootstrap(
        (values,),
        np.mean,
        method="percentile",
        n_resamples=10_000,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    assert found.value == pytest.approx(values.mean())
    width = other.high - other.low
    assert ends(found) == pytest.approx((other.low, other.high), abs=0.04 * width)


def test_groups_are_drawn_whole() -> None:
    """As SciPy has it for the mean of unequal groups: sums and sizes drawn together."""
    group = np.random.default_rng(0).integers(0, 40, 300)
    values = random(40)[group] + random(300, seed=1)
    sums, sizes = np.bincount(group, values), np.bincount(group)
    other = scipy_bootstrap(
        (sums, sizes),
        lambda s, n, axis: s.sum(axis) / n.sum(axis),
        method="percentile",
        paired=True,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    found = bootstrap_mean(values, [f"scene {n}" for n in group])
    assert found.value == pytest.approx(values.mean())
    width = other.high - other.low
    assert ends(found) == pytest.approx((other.low, other.high), abs=0.05 * width)


def test_copies_in_a_group_tell_nothing_more() -> None:
    values = random(60)
    one = bootstrap_mean(values)
    copies, group = np.repeat(values, 9), np.repeat(np.arange(60), 9)
    assert ends(bootstrap_mean(copies, group)) == pytest.approx(ends(one))
    narrow = bootstrap_mean(copies)
    assert narrow.high - narrow.low == pytest.approx((one.high - one.low) / 3, rel=0.05)


def test_seeds_widen_the_interval() -> None:
    """Variance over videos / V + variance over seeds / S, by the normal approximation."""
    rng = np.random.default_rng(0)
    S, V = 8, 400
    values = rng.normal(size=(S, 1)) * 0.2 + rng.normal(size=V)
    variance = values.mean(0).var() / V + values.mean(1).var() / S
    found = bootstrap_mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.05)
    alone = bootstrap_mean(values.mean(0))
    assert alone.high - alone.low < 0.9 * (found.high - found.low)


def test_one_seed_is_no_seed() -> None:
    values = random(50)
    assert bootstrap_mean(values[None]) == bootstrap_mean(values)


@pytest.mark.parametrize("cells", [1, 700])
def test_the_same_whatever_is_worked_on_at_once(monkeypatch, cells: int) -> None:
    """But for the random numbers, which come in another order."""
    values = random(3, 50)
    expected = bootstrap_mean(values, samples=2000)
    monkeypatch.setattr(measures, "CELLS", cells)
    found = bootstrap_mean(values, samples=2000)
    assert found.value == expected.value
    assert ends(found) == pytest.approx(ends(expected), abs=0.02)


def test_what_does_not_exist_is_left_out() -> None:
    values = random(3, 40)
    values[:, 10:] = np.nan
    found = bootstrap_mean(values)
    assert found.value == pytest.approx(values[:, :10].mean())
    expected = bootstrap_mean(values[:, :10])
    assert ends(found) == pytest.approx(ends(expected), abs=0.03)
    values[1] = np.nan  # a seed without a value
    assert bootstrap_mean(values).value == pytest.approx(values[[0, 2], :10].mean())
    nothing = bootstrap_mean(np.full((2, 9), np.nan))
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()


@given(
    values=arrays(float, st.tuples(st.integers(1, 3), st.integers(6, 12)), elements=EDGES),
    data=st.data(),
)
@settings(max_examples=40)
def test_intervals_hold_what_they_should(values: np.ndarray, data: st.DataObject) -> None:
    """Within the values; moved and turned with them; not moved by the names of the groups."""
    more = values.shape[1] - FEWEST
    group = np.array([*range(FEWEST), *data.draw(st.lists(st.integers(0, 5), min_size=more))])
    group = group[: values.shape[1]]
    found = bootstrap_mean(values, group, samples=200)
    slack = 1e-12
    assert values.min() - slack <= found.low <= found.high <= values.max() + slack
    assert found.value == pytest.approx(values.mean())
    turned = bootstrap_mean(3 - values, group, samples=200)
    assert (turned.value, turned.high, turned.low) == pytest.approx(
        (3 - found.value, 3 - found.low, 3 - found.high)
    )
    assert bootstrap_mean(values, [f"{n}.avi" for n in group], samples=200) == found


@pytest.mark.parametrize("shape", [(200,), (3, 200)])
def test_a_model_against_itself_differs_by_nothing(shape: tuple[int, ...]) -> None:
    right = random(*shape) < 0.7
    assert paired_difference(right, right) == Interval(0, 0, 0)


def test_what_is_hard_for_both_cancels() -> None:
    """A model that is right on two more of 200 videos; the interval is as narrow as McNemar's."""
    a = np.repeat([1, 0], [120, 80])
    b = a.copy()
    b[:2] = 0
    found = paired_difference(a, b)
    assert found.value == pytest.approx(0.01)
    assert ends(found) == pytest.approx((0, 0.025))  # Poisson: 0 to 5 of them in 95 %
    assert paired_difference(b, a) == Interval(-found.value, -found.high, -found.low)
    scenes = paired_difference(a, b, np.arange(200) // 2)  # both videos are of one
    assert ends(scenes) == pytest.approx((0, 0.03))


def test_seeds_are_paired() -> None:
    """A seed that is bad for both models says nothing about their difference."""
    luck = np.array([[0.0], [0.5], [1.0]])
    a, b = random(3, 50) + luck, random(3, 50, seed=1) + luck
    assert ends(paired_difference(a, b)) == pytest.approx(
        ends(paired_difference(a - luck, b - luck))
    )


def test_difference_of_mean_average_precision() -> None:
    """The same resamples, each judged by scikit-learn; scores that are often equal."""
    shape = (3, 60, 4)
    labels = (random(60, 4) < [0.3, 0.3, 0.02, 0]).astype(int)
    assert labels.sum(0)[2:].tolist() == [1, 0]  # seen in some resamples, and in none
    a, b = random(*shape, seed=1).round(1) + 0.2 * labels, random(*shape, seed=2).round(1)
    pairs = list(zip(a, b, strict=True))

    def difference(times: np.ndarray) -> np.ndarray:
        drawn = [np.repeat(np.arange(60), row.astype(int)) for row in times]
        return np.array(
            [[metric(x[i], labels[i]) - metric(y[i], labels[i]) for x, y in pairs] for i in drawn]
        )

    group = np.arange(60) // 2
    found = paired_precision_difference(a, b, labels, group, samples=50)
    expected = bootstrap(difference, 60, group, samples=50)
    assert (found.value, *ends(found)) == pytest.approx((expected.value, *ends(expected)))
    assert 0 < found.low < found.value < found.high
    assert paired_precision_difference(a, a, labels, group) == Interval(0, 0, 0)


def test_error_by_quartile() -> None:
    agreement = np.random.default_rng(0).permutation(np.linspace(-1, 1, 400))
    wrong = random(400, seed=1) < np.select([agreement < -0.5, agreement < 0.5], [0.8, 0.4], 0)
    found = error_by_quartile(agreement, wrong)
    order = np.argsort(agreement)
    for quarter, interval in enumerate(found):
        expected = wrong[order[100 * quarter : 100 * quarter + 100]].mean()
        assert interval.value == pytest.approx(expected)
        deviation = (expected * (1 - expected) / 100) ** 0.5
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    assert found[3] == Interval(0, 0, 0)
    scenes = error_by_quartile(np.repeat(agreement, 3), np.repeat(wrong, 3), np.arange(1200) // 3)
    for one, three in zip(found, scenes, strict=True):
        assert (three.value, *ends(three)) == pytest.approx((one.value, *ends(one)))


def test_quartiles_of_each_seed() -> None:
    agreement = np.stack([np.arange(8), np.arange(8)[::-1] + 100.0])
    wrong = np.stack([np.arange(8) < 2, np.arange(8) < 2])
    found = [interval.value for interval in error_by_quartile(agreement, wrong)]
    assert found == [0.5, 0, 0, 0.5]


def test_quartiles_leave_out_what_has_no_agreement_and_keep_equals_together() -> None:
    nan = np.nan
    agreement = np.array([nan, 1, 2, 3, 4, nan, 4, 4, 4])
    wrong = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0])
    found = [interval.value for interval in error_by_quartile(agreement, wrong)]
    # The quartiles of 1 2 3 4 4 4 4 are 2.5, 4 and 4: nothing is above the last two.
    assert found[:2] == pytest.approx([0.5, 0.2])
    assert np.isnan(found[2:]).all()
    nothing = error_by_quartile(np.full(5, nan), np.ones(5))
    assert np.isnan([interval.value for interval in nothing]).all()


@given(
    agreement=arrays(float, (2, 12), elements=EDGES | st.just(np.nan)),
    wrong=arrays(bool, (2, 12)),
)
def test_trend_as_scikit_learn_has_it(agreement: np.ndarray, wrong: np.ndarray) -> None:
    """1 − area under the ROC curve, of each seed that has both kinds of video; many are equal."""
    areas = []
    for row, errors in zip(agreement, wrong, strict=True):
        known = ~np.isnan(row)
        if len(set(errors[known])) == 2:
            areas.append(1 - roc_auc_score(errors[known], row[known]))
    found = error_trend(agreement, wrong, samples=20) if areas else Interval(*[np.nan] * 3)
    assert found.value == pytest.approx(np.mean(areas) if areas else np.nan, nan_ok=True)


def test_trend_of_resamples_counts_each_copy() -> None:
    agreement, wrong = random(30).round(1), random(30, seed=1) < 0.4
    times = np.random.default_rng(2).integers(0, 4, (5, 30))
    found = measures._share_below(times.astype(float), agreement, wrong)
    for row, share in zip(times, found, strict=True):
        drawn = np.repeat(np.arange(30), row)
        assert share == pytest.approx(1 - roc_auc_score(wrong[drawn], agreement[drawn]))


def test_trend() -> None:
    """Errors where attention strays; errors anywhere; errors where it does not stray."""
    agreement = random(400)
    stray = error_trend(agreement, random(400, seed=1) < 1 - agreement)
    assert stray.low > 0.75
    anywhere = error_trend(agreement, random(400, seed=2) < 0.5)
    assert anywhere.low < 0.5 < anywhere.high
    assert anywhere.high - anywhere.low < 0.15
    assert error_trend(agreement, agreement < 0.3) == Interval(1, 1, 1)
    assert error_trend(agreement, agreement > 0.3) == Interval(0, 0, 0)


def test_trend_by_groups_and_without_errors() -> None:
    agreement, wrong = random(50), random(50, seed=1) < 0.5
    copies = np.repeat(agreement, 4), np.repeat(wrong, 4), np.repeat(np.arange(50), 4)
    assert ends(error_trend(*copies)) == pytest.approx(ends(error_trend(agreement, wrong)))
    one_error = np.arange(6) == 0  # in two of three resamples
    assert error_trend(np.arange(6.0), one_error) == Interval(1, 1, 1)
    nothing = error_trend(agreement, np.zeros(50))
    assert np.isnan(nothing.value)


def test_half_wrong_over_the_seeds() -> None:
    """A video that one of two seeds gets wrong counts half on either side."""
    found = error_trend(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.5, 0.0]))
    # The first is below ½ and 1 right videos; the second, half wrong, is its own equal and below 1.
    assert found.value == pytest.approx((0.5 + 1 + 0.5 * 0.5 / 2 + 0.5) / (1.5 * 1.5))


def test_few_groups_give_no_interval() -> None:
    """Each of five is 1 by chance with 2⁻⁵, and each of them 0: more than one time in twenty."""
    assert 2 * 0.5 ** (FEWEST - 1) > 1 - LEVEL > 2 * 0.5**FEWEST
    assert bootstrap_mean(np.ones(7), list("abcdeff")) == Interval(1, 1, 1)
    found = bootstrap_mean(np.array([0.0, 1.0] * 5), list("aabbccddee"))
    assert found.value == 0.5
    assert np.isnan([found.low, found.high]).all()
    assert str(found) == "0.50 (no interval)"
    assert str(Interval(-0.001, -0.5, 0.25)) == "0.00 (-0.50 to 0.25)"
    assert Interval(0.5, 0.25, 1.0).scaled(100) == Interval(50, 25, 100)
