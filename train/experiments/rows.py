"""A row of a table: the same choices over seeds and folds, and what they come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from attnact.cache.features import FeatureCache
from attnact.train.config import TrainConfig
from attnact.train.runs import Run
from attnact.train.scoring.predictions import read_predictions
from attnact.train.scoring.scores import metric
from attnact.vocabulary import Split


@dataclass(frozen=True)
class Row:
    """The result of one row of the table; a seed counts when all its folds are there.

    config: of the row; its seed and fold are of no account.
    runs: seed -> the run of each fold.
    values: the metric of each seed. Where the folds' test videos are disjoint (k folds), the
        metric of all of them together; else (official folds) the mean over the folds.
    entropy, spread: of the attention maps of each seed, in nats and as a share of the locations,
        over the same videos; empty for a model without attention.
    """

    name: str
    config: TrainConfig
    runs: dict[int, list[Run]]
    values: list[float]
    entropy: list[float]
    spread: list[float]


def row_of(name: str, config: TrainConfig, runs: dict[int, list[Run]], cache: FeatureCache) -> Row:
    """What the runs of a row come to.

    runs: of each seed one a fold, all finished.
    """
    summaries = [[run.summary() for run in folds] for folds in runs.values()]
    apart = not overlapping(cache, [run.config.fold for run in next(iter(runs.values()))])
    mean = partial(_mean, apart)
    attends = config.model == "attention"
    return Row(
        name=name,
        config=config,
        runs=runs,
        values=[over_folds(folds, cache) for folds in runs.values()],
        entropy=[mean(cells, "attention_entropy") for cells in summaries] if attends else [],
        spread=[mean(cells, "attention_spread") for cells in summaries] if attends else [],
    )


def over_folds(runs: Sequence[Run], cache: FeatureCache) -> float:
    """The metric over the test videos of several folds; see `Row.values`."""
    results = [read_predictions(run.predictions, cache) for run in runs]
    if overlapping(cache, [run.config.fold for run in runs]):
        return float(np.mean([metric(scores, cache.labels[videos]) for videos, scores in results]))
    videos = np.concatenate([videos for videos, _ in results])
    return metric(np.concatenate([scores for _, scores in results]), cache.labels[videos])


def overlapping(cache: FeatureCache, folds: Sequence[str]) -> bool:
    """Whether a video is tested by more than one of these folds."""
    tested = np.array([cache.folds[fold] == Split.TEST for fold in folds]).sum(0)
    return bool((tested > 1).any())


def _mean(apart: bool, summaries: Sequence[dict[str, Any]], name: str) -> float:
    """Over all test videos where the folds keep them apart, else over the folds."""
    weights = [summary["videos"] if apart else 1 for summary in summaries]
    return float(np.average([summary[name] for summary in summaries], weights=weights))
