"""An extraction on a cluster: a task for each shard, by workers that see the same folders.

Nothing of it runs on the machine where it is typed, which may have no GPU: the first task makes the
plan, the last one the index.
"""

from dataclasses import replace
from functools import cache as remembered
from functools import partial
from pathlib import Path

from attnact.cache.features import FeatureCache
from attnact.cache.shards import shard_path
from attnact.errors import BusyError
from attnact.extract.config import ExtractConfig
from attnact.extract.datasets.base import Dataset
from attnact.extract.making import Report, make_shards, take_up
from attnact.extract.networks.backbone import RANDOM
from attnact.extract.pipeline import begin, describe, extract, prepare
from attnact.extract.plan import Plan
from attnact.machine.cluster import Cluster, device_of_task


class RemoteExtraction:
    """An extraction that a cluster does.

    description: the plan in a few lines, with the rate of one task; see `pipeline.describe`.
    frames_left: as the headers promise them, of the shards that are not on disk.
    """

    def __init__(
        self,
        cluster: Cluster,
        dataset: Dataset,
        cache: Path,
        config: ExtractConfig,
        dry_run: bool = False,
    ) -> None:
        """Makes the plan, and writes it unless this is a `dry_run`.

        Every file is named by its whole path, which must be the same on every machine.

        Raises:
            AttnactError: as `pipeline.prepare` and `pipeline.begin` do, and for a lost worker.
        """
        if config.weights is not None and config.weights != RANDOM:
            config = replace(config, weights=str(Path(config.weights).resolve()))
        dataset, cache = replace(dataset, root=dataset.root.resolve()), cache.resolve()
        self._cluster, self._of = cluster, (dataset, cache, config)
        self._plan: Plan
        self._plan, self.description = cluster.do(_begin, *self._of, dry_run)
        self._missing = self._plan.missing(cache, dataset.paths)
        self.frames_left = self._plan.frames_in(self._missing)

    def extract(self, report: Report) -> FeatureCache:
        """Makes the shards that are missing, then the index.

        Raises:
            AttnactError: a shard could not be made, or its worker was lost too often.
        """
        dataset, cache, config = self._of
        work = partial(_make, cache, dataset.root, config)
        items = [(shard,) for shard in self._missing]
        for (shard,), outcome in self._cluster.outcomes(work, items):
            if isinstance(outcome, Exception):
                raise outcome
            report(self._plan.frames_in([shard]), *outcome)
        made: FeatureCache = self._cluster.do(_end, *self._of)
        return made


_taken_up = remembered(take_up)  # a worker makes one shard after another


def _begin(dataset: Dataset, cache: Path, config: ExtractConfig, dry_run: bool) -> tuple[Plan, str]:
    extraction = prepare(dataset, cache, _here(config))
    plan = extraction.job.plan if dry_run else begin(extraction)
    return plan, describe(extraction)


def _make(cache: Path, root: Path, config: ExtractConfig, shard: int) -> tuple[int, int]:
    """Videos and failures of a shard that is then whole.

    Raises:
        BusyError: another process has it in hand.
    """
    counts = [(0, 0)]
    backbone, job = _taken_up(cache, root, _here(config))
    make_shards(backbone, job, [shard], lambda frames, *more: counts.append(more))
    if not shard_path(cache, shard).exists():
        raise BusyError(f"{shard_path(cache, shard)}: another process makes it")
    videos, failures = map(sum, zip(*counts, strict=True))
    return videos, failures


def _end(dataset: Dataset, cache: Path, config: ExtractConfig) -> FeatureCache:
    made = extract(prepare(dataset, cache, _here(config)), lambda *counts: None)
    if made is None:
        raise BusyError(f"{cache}: another process makes the rest")
    return made


def _here(config: ExtractConfig) -> ExtractConfig:
    return replace(config, device=device_of_task())
