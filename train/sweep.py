"""The sweep over the attention penalty: λ × seeds × folds, each a run of its own.

A sweep that was stopped goes on where it stood, and a run that fails leaves the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from attnact.errors import AttnactError
from attnact.features import FeatureCache
from attnact.train.config import TrainConfig
from attnact.train.evaluate import metric, read_predictions
from attnact.train.loop import train
from attnact.train.runs import Run, create_run, open_run
from attnact.train.store import FeatureStore
from attnact.vocabulary import Split


@dataclass(frozen=True)
class SweepRow:
    """The result of one λ; means over the seeds, a seed's value being over all folds.

    values: the metric of each seed. Where the folds' test videos are disjoint (k folds), the
        metric of all of them together; else (official folds) the mean over the folds.
    entropy, spread: of the attention maps of each seed, in nats and as a share of the locations.
    """

    penalty: float
    values: list[float]
    entropy: list[float]
    spread: list[float]


@dataclass(frozen=True)
class Sweep:
    """What a sweep found; `failures` are (run folder, reason)."""

    rows: list[SweepRow]
    failures: list[tuple[Path, str]]


def sweep(
    folder: Path,
    cache: FeatureCache,
    store: FeatureStore,
    config: TrainConfig,
    penalties: Sequence[float],
    seeds: Sequence[int],
    folds: Sequence[str],
    report: Callable[[str], None],
) -> Sweep:
    """Trains whatever is not yet trained, and gathers the results.

    Args:
        folder: of the sweep; each run is a folder in it.
        config: every choice but λ, seed and fold.
        report: told in a line what each run gave.

    Raises:
        ValueError: a λ or a seed that is out of range; nothing is trained then.
    """
    runs: dict[tuple[float, int, str], Run] = {}
    failures: list[tuple[Path, str]] = []
    cells = [
        replace(config, attention_penalty=penalty, seed=seed, fold=fold)
        for penalty, seed, fold in product(penalties, seeds, folds)
    ]
    for number, cell in enumerate(cells, 1):
        penalty, seed, fold = cell.attention_penalty, cell.seed, cell.fold
        path = folder / f"lambda{penalty:g}-fold{fold}-seed{seed}"
        try:
            run = _begin(path, cell, cache)
            result = run.summary() if run.finished else train(run, cache, store)
        except (AttnactError, OSError, RuntimeError) as error:
            failures.append((path, str(error)))
            report(f"{number}/{len(cells)} {path.name}: failed: {error}")
            continue
        runs[penalty, seed, fold] = run
        report(f"{number}/{len(cells)} {path.name}: {result['metric']} {result['value']:.3f}")
    rows = []
    for penalty in penalties:
        finished = {
            seed: [runs[penalty, seed, fold] for fold in folds if (penalty, seed, fold) in runs]
            for seed in seeds
        }
        # A seed counts when all its folds are there; half of them would be another test set.
        whole = [cell for cell in finished.values() if len(cell) == len(folds)]
        if whole:
            rows.append(_row(penalty, whole, cache))
    return Sweep(rows, failures)


def _begin(path: Path, config: TrainConfig, cache: FeatureCache) -> Run:
    if not (path / "config.json").exists():
        return create_run(path, config, cache)
    run = open_run(path)
    if run.config != config or run.cache_digest != cache.digest:
        raise AttnactError(f"{path}: made with other choices or another cache; use another --name")
    return run


def _row(penalty: float, seeds: Sequence[Sequence[Run]], cache: FeatureCache) -> SweepRow:
    summaries = [[run.summary() for run in runs] for runs in seeds]
    return SweepRow(
        penalty=penalty,
        values=[over_folds(runs, cache) for runs in seeds],
        entropy=[_mean(cells, "attention_entropy") for cells in summaries],
        spread=[_mean(cells, "attention_spread") for cells in summaries],
    )


def over_folds(runs: Sequence[Run], cache: FeatureCache) -> float:
    """The metric over the test videos of several folds; see `SweepRow.values`."""
    sides = np.array([cache.folds[run.config.fold] == Split.TEST for run in runs])
    results = [read_predictions(run.predictions, cache) for run in runs]
    if (sides.sum(0) > 1).any():
        return float(np.mean([metric(scores, cache.labels[videos]) for videos, scores in results]))
    videos = np.concatenate([videos for videos, _ in results])
    return metric(np.concatenate([scores for _, scores in results]), cache.labels[videos])


def _mean(summaries: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([summary[name] for summary in summaries]))
