"""Shards of an extraction that was begun: decoding, network and writing at the same time.

decoder process ─ reader thread ─┐
decoder process ─ reader thread ─┼─ batches ─ network (this thread) ─ writer thread ─ shards
decoder process ─ reader thread ─┘

The writer thread has the features packed by all cores, and leaves a shard that is whole to others,
which wait for the disk.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

from attnact.cache.compact import Cubes
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.tables import VideoRow
from attnact.errors import CacheError
from attnact.extract.batches import Batch, Job, Readers
from attnact.extract.choosing import recall_backbone
from attnact.extract.config import ExtractConfig
from attnact.extract.frames.decoder import Ended, Failed
from attnact.extract.frames.gpu import resizes_on
from attnact.extract.frames.video import check_decoder
from attnact.extract.networks.backbone import Backbone
from attnact.extract.networks.runtime import FRAMES_AT_ONCE
from attnact.extract.plan import Plan, plan_path, read_plan
from attnact.machine.files import file_size, full_disk_told
from attnact.machine.resources import cores

CLOSING = 2  # shards that wait for the disk while others are written

Report = Callable[[int, int, int], None]  # more frames, more videos, more failures


def make_job(
    plan: Plan,
    cache: Path,
    root: Path,
    config: ExtractConfig,
    device: torch.device,
    beside: int = 1,
) -> Job:
    """What the readers need; `beside` so many processes share this machine's cores."""
    on_gpu = device.type == "cuda"
    # One core decodes some 2000 frames/s; a network on the same CPU takes some 200 a core.
    decoders = config.decoders or max(1, (cores() - 1 if on_gpu else cores() // 4) // beside)
    size = 128 if on_gpu else 32
    return Job(plan, cache, root, size, decoders, config.time_limit, resizes_on(device))


def take_up(
    cache: Path, root: Path, config: ExtractConfig, beside: int = 1
) -> tuple[Backbone, Job]:
    """What it takes to make shards of a cache that another process began, perhaps elsewhere.

    Raises:
        CacheError: its plan is not to be seen from here, or the weights are others.
        WeightsError: the weights are missing or broken.
        UnsupportedError: the decoder is not installed.
    """
    plan = read_plan(cache)
    if plan is None:
        raise CacheError(f"{plan_path(cache)}: no such file; do all machines share this folder?")
    check_decoder(plan.settings.decoder)
    backbone = recall_backbone(cache, config, plan)
    if backbone.digest != plan.settings.weights_digest:
        raise CacheError(f"{cache}: begun with other weights than the {backbone.weights} here")
    return backbone, make_job(plan, cache, root, config, backbone.device, beside)


def make_shards(backbone: Backbone, job: Job, shards: Sequence[int], report: Report) -> None:
    """Makes those of the shards that are missing and not in another process's hands.

    Raises:
        CacheError: a shard cannot be written.
        DecoderError: no decoder starts, or there is no memory for its frames.
    """
    readers, most = Readers(job, shards), under_way(job.size, job.device)
    written: deque[Future[None]] = deque()
    closed: deque[Future[Future[None]]] = deque()
    closing = ThreadPoolExecutor(CLOSING, "closing")
    try:
        with closing, ThreadPoolExecutor(1, "writer") as writing:
            for writer, batch in readers:
                cubes = backbone.start(batch.frames)
                written.append(writing.submit(_write, writer, batch, cubes, job))
                if batch.last:
                    closed.append(writing.submit(closing.submit, _close, writer))
                _wait(written, closed, most, CLOSING)
                kinds = [type(event) for _, event in batch.events]
                report(batch.filled, kinds.count(Ended), kinds.count(Failed))
            _wait(written, closed, 0, 0)
    finally:
        readers.close()


def under_way(size: int, device: torch.device) -> int:
    """Batches between the network's door and the disk at a time, so that neither waits."""
    return max(3, 1 + at_once(size, device))


def at_once(size: int, device: torch.device) -> int:
    """Batches that keep the network busy.

    On a CPU OpenVINO may run as many passes beside each other as there are cores.
    """
    return 1 if device.type == "cuda" else max(1, cores() * FRAMES_AT_ONCE // size)


def _wait(
    written: deque[Future[None]], closed: deque[Future[Future[None]]], batches: int, shards: int
) -> None:
    """Until no more than so many are under way; raises what one of them raised."""
    while len(written) > batches:
        written.popleft().result()
    while len(closed) > shards:
        closed.popleft().result().result()


def _write(writer: ShardWriter, batch: Batch, cubes: Callable[[], torch.Tensor], job: Job) -> None:
    with _abandoned_if_failing(writer):
        _write_batch(writer, batch, cubes().numpy(), job)


def _close(writer: ShardWriter) -> None:
    if not writer.done:  # nor abandoned, which its batch has told
        with _abandoned_if_failing(writer):
            writer.close()


@contextmanager
def _abandoned_if_failing(writer: ShardWriter) -> Iterator[None]:
    try:
        with full_disk_told(writer.path):
            yield
    except BaseException:
        writer.abandon()  # or a later batch would finish a shard that lacks this one
        raise


def _write_batch(writer: ShardWriter, batch: Batch, rows: Cubes, job: Job) -> None:
    start = 0
    for video, event in batch.events:
        if isinstance(event, int):
            writer.append(rows[start : start + event])
            start += event
        elif isinstance(event, Failed):
            size = file_size(job.root / job.plan.paths[video]) or 0
            writer.drop_video(video, event.reason, size)
        else:
            info = event.info
            row = VideoRow(
                video,
                frame_rate=info.frame_rate,
                width=info.width,
                height=info.height,
                declared_frames=info.declared_frames,
                decoder=event.decoder,
                file_bytes=info.file_bytes,
            )
            writer.end_video(row)
