"""Many runs on a cluster: a task for each, by workers that see the same folders."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from attnact.cache.features import FeatureCache
from attnact.machine.cluster import Cluster, device_of_task
from attnact.machine.resources import keep_freed_memory
from attnact.train.config import TrainConfig
from attnact.train.experiments.grid import Cell, Outcomes, train_cells
from attnact.train.feed.places import FeatureStore
from attnact.train.feed.store import open_store, videos_in
from attnact.train.runs import Run


def train_on(
    cluster: Cluster,
    cache: Path,
    features_in: str,
    tensorboard: bool,
    folder: Path,
    cells: Mapping[Cell, TrainConfig],
) -> Outcomes:
    """Trains each cell in a task of its own; those that another process trains are waited for.

    cache: its file.
    features_in: where a worker keeps the features of a fold; see `open_store`.
    """
    work = partial(_train, cache.resolve(), features_in, tensorboard, folder.resolve())
    for (cell, _), outcome in cluster.outcomes(work, list(cells.items())):
        yield cell, outcome


_held: dict[tuple[Any, ...], tuple[FeatureCache, FeatureStore]] = {}  # of the latest task's fold


def _train(
    path: Path, features_in: str, tensorboard: bool, folder: Path, cell: Cell, config: TrainConfig
) -> Run:
    """The run, trained.

    Raises:
        RunBusyError: another process trains it; and whatever it fails on.
    """
    keep_freed_memory()
    place = path, config.fold, features_in, device_of_task()
    if place not in _held:
        _held.clear()  # first: two may not fit
        cache = FeatureCache(path)
        videos = videos_in(cache, [config.fold])
        store = open_store(cache, videos, features_in, torch.device(place[-1]))  # type: ignore[arg-type]
        _held[place] = cache, store
    cache, store = _held[place]
    ((_, outcome),) = train_cells(folder, {cell: config}, cache, lambda: store, tensorboard)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
