"""How sure a number is: bootstrap intervals of means, of differences and of trends.

Whatever is measured has a value for each seed and test video, (S, V), or (V,) where there is one
model. A resample draws the groups of the videos, with replacement, because the clips of one scene
fail together; and it draws the seeds, because another training would have given other values. The
value is the mean over the seeds. With S seeds the part of the interval that is due to them is too
narrow by √((S − 1) / S); with one, the interval is of that one model, on other videos.

NaN is a value that does not exist: it is left out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attnact.train.feed.clips import Ints
from attnact.train.scoring.scores import Floats

LEVEL = 0.95  # of every interval

# Groups that an interval takes: that five all say the same is chance too often, 2 · 2⁻⁵ > 5 %.
FEWEST = 6
SAMPLES = 10_000  # resamples
CELLS = 1 << 21  # resamples × videos worked on at once: 16 MiB an array

Groups = Sequence[str] | npt.NDArray[Any]  # (V,) names or numbers


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval, in NaN where there is nothing to measure it by."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Interval":
        """The same in another unit, as 100 makes percent of shares."""
        return Interval(factor * self.value, factor * self.low, factor * self.high)

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "none"
        value, low, high = (f"{round(x, 2) + 0.0:.2f}" for x in (self.value, self.low, self.high))
        return f"{value} (no interval)" if np.isnan(self.low) else f"{value} ({low} to {high})"


def bootstrap(
    statistic: Callable[[Floats], Floats],
    videos: int,
    groups: Groups | None = None,
    samples: int = SAMPLES,
) -> Interval:
    """The percentile bootstrap interval of a statistic of V videos, averaged over S seeds.

    Args:
        statistic: of how often each video stands in each of k resamples, (k, V), to the value of
            each seed, (k, S); NaN where a resample has none.
        videos: V.
        groups: of the videos; each is its own without. Fewer than `FEWEST` give no interval.
        samples: how many resamples.
    """
    rng = np.random.default_rng(0)
    value = statistic(np.ones((1, videos)))[0]
    seeds = np.flatnonzero(~np.isnan(value))
    if not len(seeds):
        return Interval(np.nan, np.nan, np.nan)
    if len(np.unique(np.arange(videos) if groups is None else np.asarray(groups))) < FEWEST:
        return Interval(float(value[seeds].mean()), np.nan, np.nan)
    found = []
    for times in _resamples(np.arange(videos) if groups is None else groups, rng, samples):
        drawn = rng.choice(seeds, (len(times), len(seeds)))
        found.append(np.take_along_axis(statistic(times), drawn, axis=1).mean(1))
    ends = np.nanquantile(np.concatenate(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value[seeds].mean()), float(ends[0]), float(ends[1]))


def bootstrap_mean(
    values: Floats, groups: Groups | None = None, samples: int = SAMPLES
) -> Interval:
    """The mean over the videos of (S, V) or (V,), and its interval; see `bootstrap`."""
    rows = np.atleast_2d(values)
    known = ~np.isnan(rows)
    sums, counts = np.where(known, rows, 0).T, known.T.astype(np.float64)

    def mean(times: Floats) -> Floats:
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is meant
            result: Floats = (times @ sums) / (times @ counts)
        return result

    return bootstrap(mean, rows.shape[1], groups, samples)


def paired_difference(a: Floats, b: Floats, groups: Groups | None = None) -> Interval:
    """By how much the mean of a is over that of b, on the same videos with the same seeds.

    Accuracy is a mean: of 1 for each video that is right and 0 for each that is wrong. A resample
    takes a video and a seed from both models or from neither, so what is hard for both cancels.
    """
    return bootstrap_mean(np.subtract(a, b, dtype=np.float64), groups)


def paired_precision_difference(
    a: Floats,
    b: Floats,
    labels: npt.NDArray[np.int64],
    groups: Groups | None = None,
    samples: int = 2_000,
) -> Interval:
    """By how much the mean average precision of scores a is over that of scores b.

    Args:
        a: scores of one model, (S, V, N).
        b: scores of the other, likewise, of the same seeds and videos.
        labels: (V, N), 0 and 1.
        groups: of the videos.
        samples: how many resamples.
    """

    def difference(times: Floats) -> Floats:
        means = [
            [_mean_precision(times, x, labels) for x in pair] for pair in zip(a, b, strict=True)
        ]
        return np.stack([x - y for x, y in means], axis=1)

    return bootstrap(difference, len(labels), groups, samples)


def error_by_quartile(
    agreement: Floats, wrong: Floats, groups: Groups | None = None
) -> list[Interval]:
    """The error rate of the quarter of the videos that agree least, of the next, and so on.

    Args:
        agreement: of a video's looks with something, (S, V) or (V,); equals are in one quarter,
            and a video without any is in none. Each seed has quarters of its own.
        wrong: 1 where the video was got wrong, else 0, in the same shape.
        groups: of the videos.
    """
    quarter = np.apply_along_axis(_quarters, -1, np.asarray(agreement, np.float64))
    parts = [np.where(quarter == q, wrong, np.nan) for q in range(4)]
    return [bootstrap_mean(part, groups) for part in parts]


def error_trend(
    agreement: Floats,
    wrong: Floats,
    groups: Groups | None = None,
    samples: int = SAMPLES,
) -> Interval:
    """The chance that a video that was got wrong agrees less than one that was got right.

    1 where every error has a lower agreement than whatever is right, 1/2 where they have nothing to
    do with each other, 0 where the errors agree most (1 less the area under the ROC curve, which,
    unlike a correlation, can be 1 whatever the error rate is).

    Args:
        agreement: as in `error_by_quartile`.
        wrong: likewise.
        groups: of the videos.
        samples: how many resamples.
    """
    rows = list(zip(np.atleast_2d(agreement), np.atleast_2d(wrong), strict=True))

    def trend(times: Floats) -> Floats:
        return np.stack([_share_below(times, *row) for row in rows], axis=1)

    return bootstrap(trend, rows[0][0].size, groups, samples)


def _resamples(groups: Groups, rng: np.random.Generator, samples: int) -> Iterator[Floats]:
    """How often each video stands in each resample: some resamples (k, V) at a time."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    G = int(group.max()) + 1
    block = max(1, CELLS // len(group))
    for start in range(0, samples, block):
        k = min(block, samples - start)
        drawn = rng.integers(G, size=(k, G)) + G * np.arange(k)[:, None]
        times = np.bincount(drawn.ravel(), minlength=k * G).reshape(k, G)
        yield times[:, group].astype(np.float64)


def _mean_precision(times: Floats, scores: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """`scores.metric` of scores and labels (V, N) in each resample, (k,).

    All resamples at once: a call of scikit-learn for each would take forty times as long.
    """
    classes = np.stack(
        [_average_precision(times, scores[:, n], labels[:, n]) for n in range(labels.shape[1])]
    )
    seen = ~np.isnan(classes)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(seen, classes, 0).sum(0) / seen.sum(0)
    return mean


def _average_precision(times: Floats, scores: Floats, holds: npt.NDArray[np.int64]) -> Floats:
    """The average precision of one class in each resample, (k,); NaN where it is never seen."""
    order = np.argsort(-scores)
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan))  # the last of equal scores
    taken = times[:, order]
    seen = taken.cumsum(1)[:, ends]
    hits = (taken * holds[order]).cumsum(1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0)
    precision = hits / np.maximum(seen, 1)  # whatever is not drawn gains nothing
    with np.errstate(invalid="ignore"):
        average: Floats = (gained * precision).sum(1) / hits[:, -1]
    return average


def _quarters(values: Floats) -> Ints:
    """The quarter of each value, 0 to 3, -1 for NaN."""
    known = ~np.isnan(values)
    quarters = np.full(values.shape, -1)
    if known.any():
        bounds = np.quantile(values[known], [0.25, 0.5, 0.75])
        quarters[known] = np.searchsorted(bounds, values[known])
    return quarters


def _share_below(times: Floats, agreement: Floats, wrong: Floats) -> Floats:
    """Of all pairs of a wrong and a right video, the share where the wrong one agrees less, (k,).

    Equals count half.
    """
    known = np.flatnonzero(~np.isnan(agreement + wrong))
    order = known[np.argsort(agreement[known])]
    values, is_wrong = agreement[order], wrong[order]
    wrongs, rights = times[:, order] * is_wrong, times[:, order] * (1 - is_wrong)
    upto = np.pad(rights.cumsum(1), ((0, 0), (1, 0)))  # right videos before each place
    below = upto[:, np.searchsorted(values, values, "left")]
    not_above = upto[:, np.searchsorted(values, values, "right")]
    above = upto[:, -1:] - (below + not_above) / 2
    with np.errstate(invalid="ignore"):  # 0 / 0 where all are wrong, or none: NaN is meant
        share: Floats = (wrongs * above).sum(1) / (wrongs.sum(1) * rights.sum(1))
    return share
