"""Videos to a finished feature cache: decoding, network and writing at the same time.

decoder process ─ reader thread ─┐
decoder process ─ reader thread ─┼─ batches ─ network (this thread) ─ writer thread ─ shards
decoder process ─ reader thread ─┘
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

from attnact.extract.backbone import RANDOM, Backbone
from attnact.extract.batches import Batch, Job, Readers
from attnact.extract.choosing import choose_backbone, random_weights_path
from attnact.extract.config import ExtractConfig
from attnact.extract.datasets.base import Dataset
from attnact.extract.decoding import Ended, Failed, probe_all
from attnact.extract.plan import Plan, Settings, check_same, divide, keep_plan, read_plan
from attnact.extract.video import FRAME_SIDE
from attnact.feature_writer import Listing, ShardWriter, write_index
from attnact.features import Cubes, FeatureCache, VideoRow
from attnact.files import check_disk, full_disk_told
from attnact.progress import progress
from attnact.provenance import command, now, versions

UNDER_WAY = 3  # batches between the network's door and the disk, so that neither waits


@dataclass(frozen=True)
class Extraction:
    """An extraction that is ready to run; nothing is written yet.

    weights_file: where the weights were read; empty for published and for random ones.
    """

    dataset: Dataset
    backbone: Backbone
    job: Job
    weights_file: str = ""


Report = Callable[[int, int, int], None]  # more frames, more videos, more failures


def prepare(dataset: Dataset, cache: Path, config: ExtractConfig) -> Extraction:
    """Loads the backbone and makes the plan, or takes up the one of an interrupted extraction.

    Raises:
        WeightsError: the weights are missing or broken.
        CacheError: the cache was begun with other settings or other videos.
    """
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
    paths = tuple(video.path for video in dataset.videos)
    if plan is None:
        plan = _new_plan(dataset, settings, config.time_limit)
    else:
        check_same(cache, plan, settings, paths)
    on_gpu = backbone.device.type == "cuda"
    cores = os.cpu_count() or 1
    # One core decodes some 1000 frames/s; a network on the same CPU takes some 200 a core.
    decoders = config.decoders or (max(1, cores - 1) if on_gpu else max(1, cores // 4))
    size = 128 if on_gpu else 32
    job = Job(plan, cache, dataset.root, size, decoders, config.time_limit, pinned=on_gpu)
    given = config.weights not in (None, RANDOM)
    file = str(Path(config.weights).resolve()) if config.weights and given else ""
    return Extraction(dataset, backbone, job, file)


def forward_rate(extraction: Extraction) -> float:
    """Frames a second of the network alone, from two batches after one to warm up."""
    size = extraction.job.size
    frames = torch.zeros((size, FRAME_SIDE, FRAME_SIDE, 3), dtype=torch.uint8)
    extraction.backbone.start(frames)()
    start = time.perf_counter()
    for wait in [extraction.backbone.start(frames) for _ in range(2)]:
        wait()
    return 2 * size / (time.perf_counter() - start)


def frames_left(extraction: Extraction) -> int:
    """Frames, as the headers promise them, of the shards that are not on disk."""
    job = extraction.job
    return job.plan.frames_in(job.plan.missing(job.cache))


def describe(extraction: Extraction) -> str:
    """The plan in a few lines: what there is to do, what it takes, and how long."""
    job, backbone = extraction.job, extraction.backbone
    missing = job.plan.missing(job.cache)
    frames, shards = job.plan.frames_in(missing), len(job.plan.starts)
    lines = [
        f"{extraction.dataset.name}: {len(job.plan.paths)} videos, "
        f"{len(extraction.dataset.classes)} classes, about {sum(job.plan.frames):,} frames",
        f"{backbone.name}, weights {backbone.weights}, by {backbone.runtime} in "
        f"{backbone.precision} on {backbone.device}, {job.decoders} decoder(s)",
    ]
    if not missing:
        return "\n".join([*lines, f"all {shards} shards of {job.cache} are there"])
    rate = forward_rate(extraction)
    left = timedelta(seconds=round(frames / rate))
    lines.append(
        f"to make: {len(missing)} of {shards} shards, about {frames:,} frames, "
        f"{job.plan.bytes_in(missing) / 2**30:.2f} GiB, {left} at {rate:,.0f} frames/s"
    )
    return "\n".join(lines)


def extract(extraction: Extraction, report: Report) -> FeatureCache | None:
    """Makes the shards that are missing, then the index; None if other processes still make some.

    Raises:
        CacheError: not enough disk, or a cache begun with other settings.
    """
    job = extraction.job
    check_disk(job.cache.parent, job.plan.bytes_in(job.plan.missing(job.cache)))
    plan = keep_plan(job.cache, job.plan)
    if extraction.backbone.is_random and not random_weights_path(job.cache).exists():
        extraction.backbone.save(random_weights_path(job.cache))
    missing = plan.missing(job.cache)
    if missing:
        _make_shards(replace(extraction, job=replace(job, plan=plan)), missing, report)
    if plan.missing(job.cache):
        return None
    listing, provenance = _listing(extraction.dataset), _provenance(extraction, plan)
    return write_index(job.cache, len(plan.starts), listing, provenance)


def _make_shards(extraction: Extraction, shards: Sequence[int], report: Report) -> None:
    readers = Readers(extraction.job, shards)
    backlog: deque[Future[None]] = deque()
    try:
        with ThreadPoolExecutor(1, "writer") as writing:
            for writer, batch in readers:
                cubes = extraction.backbone.start(torch.from_numpy(batch.frames))
                backlog.append(writing.submit(_write, writer, batch, cubes))
                if len(backlog) > UNDER_WAY:
                    backlog.popleft().result()
                kinds = [type(event) for _, event in batch.events]
                report(batch.filled, kinds.count(Ended), kinds.count(Failed))
            for written in backlog:
                written.result()
    finally:
        readers.close()


def _write(writer: ShardWriter, batch: Batch, cubes: Callable[[], torch.Tensor]) -> None:
    try:
        rows = cubes().numpy()
        with full_disk_told(writer.path):
            _write_batch(writer, batch, rows)
    except BaseException:
        writer.abandon()  # or a later batch would finish a shard that lacks this one
        raise


def _write_batch(writer: ShardWriter, batch: Batch, rows: Cubes) -> None:
    start = 0
    for video, event in batch.events:
        if isinstance(event, int):
            writer.append(rows[start : start + event])
            start += event
        elif isinstance(event, Failed):
            writer.drop_video(video, event.reason)
        else:
            info = event.info
            row = VideoRow(
                video,
                frame_rate=info.frame_rate,
                width=info.width,
                height=info.height,
                declared_frames=info.declared_frames,
                decoder=event.decoder,
            )
            writer.end_video(row)
    if batch.last:
        writer.close()


def _new_plan(dataset: Dataset, settings: Settings, time_limit: float) -> Plan:
    paths = [dataset.root / video.path for video in dataset.videos]
    frames: list[int] = []
    with progress("reading headers", len(paths), "videos") as advance:
        for info in probe_all(paths, time_limit):
            frames.append(0 if isinstance(info, Failed) else info.declared_frames)
            advance(1, "")
    return Plan(
        settings=settings,
        paths=tuple(video.path for video in dataset.videos),
        frames=tuple(frames),
        starts=divide(frames),
        date=now(),
        command=command(),
    )


def _listing(dataset: Dataset) -> Listing:
    labels = np.zeros((len(dataset.videos), len(dataset.classes)), np.int64)
    for row, video in zip(labels, dataset.videos, strict=True):
        row[list(video.labels)] = 1
    return Listing(
        name=dataset.name,
        root=dataset.root.resolve(),
        classes=dataset.classes,
        paths=[video.path for video in dataset.videos],
        labels=labels if dataset.multi_label else labels.argmax(1),
        groups=[video.group for video in dataset.videos],
        folds={name: np.array(sides, np.int8) for name, sides in dataset.folds.items()},
    )


def _provenance(extraction: Extraction, plan: Plan) -> dict[str, str]:
    return {
        **asdict(plan.settings),
        "weights_file": extraction.weights_file,
        "weights_are_random": str(extraction.backbone.is_random).lower(),
        "device": str(extraction.backbone.device),
        "date": plan.date,
        "command": plan.command,
        **versions("torch", "torchvision", "av", "h5py", "numpy", "pillow"),
    }
