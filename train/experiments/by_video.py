"""What the models of a row make of each test video, so that rows can be compared video by video.

A video that several folds test counts once, with the mean over those folds.
"""

from collections.abc import Sequence

import numpy as np

from attnact.cache.features import FeatureCache
from attnact.train.experiments.rows import Row
from attnact.train.feed.clips import Ints
from attnact.train.scoring.measures import (
    Groups,
    Interval,
    paired_difference,
    paired_precision_difference,
)
from attnact.train.scoring.predictions import read_attention, read_predictions
from attnact.train.scoring.scores import Floats
from attnact.vocabulary import Split


def row_videos(row: Row, cache: FeatureCache) -> Ints:
    """The videos that any of the row's folds tests, as positions in the cache, sorted, (V,)."""
    runs = next(iter(row.runs.values()))
    return np.flatnonzero(np.any([cache.folds[run.config.fold] == Split.TEST for run in runs], 0))


def groups_of(row: Row, cache: FeatureCache) -> Groups:
    """The group of each test video, (V,)."""
    return np.array(cache.groups)[row_videos(row, cache)]


def scores_of(row: Row, seed: int, cache: FeatureCache) -> Floats:
    """The scores of each test video by the models of one seed, (V, N)."""
    found = [read_predictions(run.predictions, cache) for run in row.runs[seed]]
    return _mean_over_folds(row_videos(row, cache), found)


def right_of(row: Row, seed: int, cache: FeatureCache) -> Floats:
    """1 for each test video whose best class holds, else 0, (V,)."""
    found = []
    for run in row.runs[seed]:
        videos, scores = read_predictions(run.predictions, cache)
        best = scores.argmax(1)
        labels = cache.labels[videos]
        holds = labels[np.arange(len(videos)), best] if cache.multi_label else labels == best
        found.append((videos, holds.astype(np.float64)))
    return _mean_over_folds(row_videos(row, cache), found)


def attention_of(row: Row, seed: int, cache: FeatureCache) -> Floats:
    """Entropy and spread of the attention maps of each test video, (V, 2)."""
    found = [read_attention(run.attention, cache) for run in row.runs[seed]]
    return _mean_over_folds(row_videos(row, cache), found)


def compare(a: Row, b: Row, cache: FeatureCache) -> Interval:
    """By how much the data set's metric of a is over that of b, over the seeds that both have."""
    seeds = sorted(set(a.runs) & set(b.runs))
    groups = groups_of(a, cache)
    if cache.multi_label:
        ours, theirs = (np.stack([scores_of(row, seed, cache) for seed in seeds]) for row in (a, b))
        labels = cache.labels[row_videos(a, cache)]
        return paired_precision_difference(ours, theirs, labels, groups)
    ours, theirs = (np.stack([right_of(row, seed, cache) for seed in seeds]) for row in (a, b))
    return paired_difference(ours, theirs, groups)


def _mean_over_folds(every: Ints, found: Sequence[tuple[Ints, Floats]]) -> Floats:
    """Of (videos, values) for each fold, the mean of each video's values."""
    total = np.zeros((len(every), *found[0][1].shape[1:]))
    count = np.zeros((len(every), *[1] * (total.ndim - 1)))
    for videos, values in found:
        place = np.searchsorted(every, videos)
        np.add.at(total, place, values)
        np.add.at(count, place, 1)
    mean: Floats = total / count
    return mean
