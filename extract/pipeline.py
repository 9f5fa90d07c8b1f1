"""Videos to a finished feature cache: what there is to do, the shards, and then the index."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch

from attnact.cache.features import FeatureCache
from attnact.cache.provenance import command, now
from attnact.errors import CacheError
from attnact.extract.batches import Job
from attnact.extract.choosing import choose_backbone, random_weights_path
from attnact.extract.config import ExtractConfig
from attnact.extract.datasets.base import Dataset
from attnact.extract.datasets.disk import some
from attnact.extract.frames.decoder import Failed
from attnact.extract.frames.decoding import probe_all
from attnact.extract.frames.resize import FRAME_SIDE
from attnact.extract.frames.video import check_decoder
from attnact.extract.index import finish, listing_of, mended, provenance_of, standing
from attnact.extract.making import Report, at_once, make_job, make_shards
from attnact.extract.networks.backbone import Backbone
from attnact.extract.networks.runtime import FRAMES_AT_ONCE
from attnact.extract.plan import Plan, Settings, check_settings, keep_plan, read_plan
from attnact.machine.files import check_disk
from attnact.machine.progress import progress
from attnact.vocabulary import Split


@dataclass(frozen=True)
class Extraction:
    """An extraction that is ready to run; nothing is written yet."""

    dataset: Dataset
    backbone: Backbone
    job: Job
    config: ExtractConfig


Make = Callable[[Extraction, Sequence[int], Report], None]  # who makes the shards that are missing


def make_here(extraction: Extraction, shards: Sequence[int], report: Report) -> None:
    """In this process."""
    make_shards(extraction.backbone, extraction.job, shards, report)


def prepare(dataset: Dataset, cache: Path, config: ExtractConfig, beside: int = 1) -> Extraction:
    """Loads the backbone and makes the plan, or goes on with the one of a cache that was begun.

    beside: processes that will share this machine's cores.

    Raises:
        WeightsError: the weights are missing or broken.
        CacheError: the cache was begun with other settings, has an index of other videos or that
            lists them otherwise, or something else is in its place.
        UnsupportedError: the decoder is not installed.
    """
    if cache.is_dir():
        raise CacheError(f"{cache}: a folder; --out is a file, as {cache / 'NAME.h5'}")
    check_decoder(config.decoder)
    plan = read_plan(cache)
    backbone = choose_backbone(dataset, cache, config, plan)
    settings = Settings(
        backbone=config.backbone,
        weights=backbone.weights,
        weights_digest=backbone.digest,
        resize=config.resize,
        decoder=config.decoder,
        compression=config.compression,
        dtype=config.dtype,
        runtime=backbone.runtime,
        precision=backbone.precision,
    )
    if plan is None:
        _check_free(cache)
        plan = Plan(settings, (), (), (), now(), command())
    else:
        check_settings(cache, plan, settings)
    new = [path for path in dataset.paths if path not in plan.places]
    plan = _with_videos(plan, dataset.root, new, config.time_limit)
    if standing(cache, plan, listing_of(dataset, plan)) is None:
        again = mended(cache, plan, dataset)
        plan = _with_videos(plan, dataset.root, again, config.time_limit)
    job = make_job(plan, cache, dataset.root, config, backbone.device, beside)
    return Extraction(dataset, backbone, job, config)


def forward_rate(extraction: Extraction) -> float:
    """Frames a second of the network alone, kept busy after some frames that warm it up."""
    size, device = extraction.job.size, extraction.job.device
    frames = torch.zeros((size, FRAME_SIDE, FRAME_SIDE, 3), dtype=torch.uint8, device=device)
    # A GPU may record its second batch. On a CPU each batch is a third of a second of the start.
    for part in [frames] * 2 if device.type == "cuda" else [frames[:FRAMES_AT_ONCE]]:
        extraction.backbone.start(part)()
    count, start = at_once(size, device), time.perf_counter()
    for wait in [extraction.backbone.start(frames) for _ in range(count)]:
        wait()
    return count * size / (time.perf_counter() - start)


def frames_left(extraction: Extraction) -> int:
    """Frames, as the headers promise them, of the shards that are not on disk."""
    job = extraction.job
    return job.plan.frames_in(job.plan.missing(job.cache, extraction.dataset.paths))


def describe(extraction: Extraction, devices: int = 1) -> str:
    """The plan in a few lines: what there is to do, what it takes, and how long on so many."""
    job, backbone = extraction.job, extraction.backbone
    paths = extraction.dataset.paths
    missing, shards = job.plan.missing(job.cache, paths), len(job.plan.shards_of(paths))
    frames = job.plan.frames_in(missing)
    declared = dict(zip(job.plan.paths, job.plan.frames, strict=True))
    videos = extraction.dataset.videos
    lines = [
        f"{extraction.dataset.name}: {len(videos)} videos, {len(extraction.dataset.classes)} "
        f"classes, about {sum(declared[video.path] for video in videos):,} frames",
        f"videos a class: {some(_counts(extraction.dataset))}",
        f"folds, train and test: {some(_sides(extraction.dataset))}",
        f"{backbone.name}, weights {backbone.weights}, by {backbone.runtime} in "
        f"{backbone.precision} on {backbone.device}, {job.decoders} decoder(s)",
    ]
    if not missing:
        return "\n".join([*lines, f"all {shards} shards of {job.cache} are there"])
    rate = forward_rate(extraction)
    left = timedelta(seconds=round(frames / rate / devices))
    each = f" on each of {devices} devices" if devices > 1 else ""
    # A GPU may wait for those who decode and compress.
    least = "at least " if backbone.device.type == "cuda" else ""
    lines.append(
        f"to make: {len(missing)} of {shards} shards, about {frames:,} frames, "
        f"{job.plan.bytes_in(missing) / 2**30:.2f} GiB, {least}{left} at {rate:,.0f} frames/s{each}"
    )
    return "\n".join(lines)


def begin(extraction: Extraction) -> Plan:
    """Writes the plan, and the weights if they are random; gives the plan that is to be followed.

    Raises:
        CacheError: not enough disk, or a cache begun with other settings.
    """
    job, paths = extraction.job, extraction.dataset.paths
    check_disk(job.cache.parent, job.plan.bytes_in(job.plan.missing(job.cache, paths)))
    plan = keep_plan(job.cache, job.plan)
    if extraction.backbone.is_random and not random_weights_path(job.cache).exists():
        extraction.backbone.save(random_weights_path(job.cache))
    return plan


def extract(extraction: Extraction, report: Report, make: Make = make_here) -> FeatureCache | None:
    """Makes the shards that are missing, then the index; None if other processes still make some.

    Raises:
        CacheError: not enough disk, or a cache begun with other settings.
        DecoderError: see `make_shards`.
    """
    job, plan = extraction.job, begin(extraction)
    paths = extraction.dataset.paths
    missing = plan.missing(job.cache, paths)
    if missing:
        make(replace(extraction, job=replace(job, plan=plan)), missing, report)
    if plan.missing(job.cache, paths):
        return None
    provenance = provenance_of(plan, extraction.backbone, extraction.config)
    return finish(job.cache, plan, listing_of(extraction.dataset, plan), provenance)


def _counts(dataset: Dataset) -> list[str]:
    """How many videos each class has."""
    counts = Counter(label for video in dataset.videos for label in video.labels)
    return [f"{name} {counts[n]}" for n, name in enumerate(dataset.classes)]


def _sides(dataset: Dataset) -> list[str]:
    """How many videos each fold trains and tests on."""
    counts = {name: Counter(sides) for name, sides in dataset.folds.items()}
    return [f"{name} ({it[Split.TRAIN]} and {it[Split.TEST]})" for name, it in counts.items()]


def _check_free(cache: Path) -> None:
    """Refuses to write over somebody's file.

    Raises:
        CacheError: there is one, and it is no feature cache.
    """
    if cache.exists():
        try:
            FeatureCache(cache)
        except CacheError as error:
            raise CacheError(f"{cache}: is in the way; choose another --out ({error})") from error


def _with_videos(plan: Plan, root: Path, paths: Sequence[str], time_limit: float) -> Plan:
    """The plan with these videos at its end, whose headers are read."""
    if not paths:
        return plan
    frames: list[int] = []
    with progress("reading headers", len(paths), "videos") as advance:
        for info in probe_all([root / path for path in paths], time_limit):
            frames.append(0 if isinstance(info, Failed) else info.declared_frames)
            advance(1, "")
    return plan.with_videos(paths, frames)
