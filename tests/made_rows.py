"""Rows of a grid whose models guess as the test says, without training anything."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from attnact.cache.features import FeatureCache
from attnact.train.config import TrainConfig
from attnact.train.experiments.rows import Row, over_folds
from attnact.train.experiments.table1 import table1_rows
from attnact.train.runs import create_run
from attnact.train.scoring.predictions import write_attention, write_predictions
from attnact.train.scoring.scores import VideoScores
from attnact.vocabulary import Split


def row(
    folder: Path, cache: FeatureCache, name: str, folds: list[str], scores: Any, seeds: int = 2
) -> Row:
    """A row whose runs predicted `scores(seed, videos)` for the test videos of each fold."""
    config = table1_rows(TrainConfig(fold=folds[0]))[name]
    runs: dict[int, Any] = {}
    for seed in range(seeds):
        runs[seed] = []
        for fold in folds:
            choices = replace(config, seed=seed, fold=fold)
            run = create_run(folder / f"{name}-{fold}-{seed}", choices, cache)
            videos = np.flatnonzero(cache.folds[fold] == Split.TEST)
            wide = np.linspace(0.1, 0.9, len(videos)) if name == "lambda10" else 0.1
            looks = np.stack([np.full(len(videos), 2.0), np.full(len(videos), wide)], axis=1)
            found = VideoScores(videos, scores(seed, videos), 0, looks)
            write_predictions(run.predictions, cache, found)
            write_attention(run.attention, cache, found)
            runs[seed].append(run)
    values = [over_folds(of_seed, cache) for of_seed in runs.values()]
    looks = [0.5] * seeds if name.startswith("lambda") else []
    return Row(name, config, runs, values, looks, looks)


def guesses(cache: FeatureCache, wrong: Any) -> Any:
    """Scores that are right but for the videos that `wrong(seed)` names."""

    def scores(seed: int, videos: Any) -> Any:
        missed = np.isin(videos, wrong(seed))
        return np.eye(3)[(cache.labels[videos] + missed) % 3]

    return scores
