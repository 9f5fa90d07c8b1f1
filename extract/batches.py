"""Videos to batches of frames: a thread and a decoder process for each shard under way.

The thread resizes the frames, on a GPU if they go to one.

A reader fills batches from the videos of one shard, across their borders. So the batches of a
shard are always the same, and so are its bytes, whatever else ran, was killed, or failed.
"""

import math
import mmap
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from attnact.cache.feature_writer import ShardWriter
from attnact.cache.shards import shard_path
from attnact.errors import DecoderError
from attnact.extract.frames.decoder import Ended, Failed
from attnact.extract.frames.decoding import Event, decode
from attnact.extract.frames.gpu import CPU, own_stream
from attnact.extract.frames.resize import FRAME_SIDE
from attnact.extract.plan import Plan


@dataclass
class Batch:
    """Frames of one shard for one forward pass, (batch, 224, 224, 3); the last is zero-padded.

    frames: uint8, on the GPU where the network runs on one.
    events: (video, n frames | Ended | Failed), in the order in which they came.
    """

    frames: Tensor
    filled: int = 0
    events: list[tuple[int, int | Ended | Failed]] = field(default_factory=list)
    last: bool = False


def batches(
    videos: Sequence[int],
    events: Iterable[tuple[int, Event]],
    size: int,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """The frames of some videos in batches of `size`; the last one says so and may be empty.

    events: (position in `videos`, event), as `decode` yields them for this device.
    """
    batch = _empty_batch(size, device)
    for position, event in events:
        video = videos[position]
        if not isinstance(event, Tensor):
            batch.events.append((video, event))
            continue
        frames = event
        while len(frames):
            taken = min(len(frames), size - batch.filled)
            batch.frames[batch.filled : batch.filled + taken] = frames[:taken]
            batch.events.append((video, taken))
            batch.filled += taken
            frames = frames[taken:]
            if batch.filled == size:
                yield batch
                batch = _empty_batch(size, device)
    batch.frames[batch.filled :] = 0
    batch.last = True
    yield batch


def _empty_batch(size: int, device: torch.device) -> Batch:
    shape = (size, FRAME_SIDE, FRAME_SIDE, 3)
    if device.type != "cpu":
        return Batch(torch.empty(shape, dtype=torch.uint8, device=device))
    # Pages of its own, given back when it goes: what one thread allocates and another frees would
    # else leave holes, and hours of an extraction gigabytes of them.
    memory = mmap.mmap(-1, math.prod(shape))
    return Batch(torch.frombuffer(memory, dtype=torch.uint8).view(shape))


@dataclass(frozen=True)
class Job:
    """What the readers of one extraction share.

    size: frames of a batch.
    decoders: shards that are read at the same time.
    time_limit: seconds without a frame after which a file is given up.
    device: where the frames are to be: a GPU where the network runs on one.
    """

    plan: Plan
    cache: Path
    root: Path
    size: int
    decoders: int
    time_limit: float
    device: torch.device = CPU


class Readers:
    """Threads that each turn one shard after another into batches; iterate for the batches."""

    def __init__(self, job: Job, shards: Sequence[int]) -> None:
        self._job = job
        self._shards = iter(shards)
        self._next_shard = threading.Lock()
        self._writers: list[ShardWriter] = []
        self._stop = threading.Event()
        count = min(job.decoders, len(shards))
        self._batches: queue.Queue[tuple[ShardWriter, Batch] | Exception | None]
        self._batches = queue.Queue(count + 1)
        self._threads = [threading.Thread(target=self._read, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[tuple[ShardWriter, Batch]]:
        running = len(self._threads)
        while running:
            item = self._batches.get()
            if item is None:
                running -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item

    def close(self) -> None:
        """Stops the threads and their decoders; shards that are not whole leave no trace."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2)  # one that waits for a hanging file dies with this process
        for writer in self._writers:
            writer.abandon()

    def _read(self) -> None:
        try:
            with own_stream(self._job.device) as wait:
                while (shard := self._take()) is not None and not self._stop.is_set():
                    path = shard_path(self._job.cache, shard)
                    settings = self._job.plan.settings
                    writer = ShardWriter.claim(path, settings.compression, settings.dtype)
                    if writer is not None:
                        self._keep(writer)
                        self._read_shard(writer, self._job.plan.shard(shard), wait)
        except torch.cuda.OutOfMemoryError:
            text = (
                f"no memory for the frames of {len(self._threads)} decoders on {self._job.device}: "
                "fewer --decoders take less of it"
            )
            self._put(DecoderError(text))
        except Exception as error:
            self._put(error)
        self._put(None)

    def _read_shard(self, writer: ShardWriter, videos: range, wait: Callable[[], None]) -> None:
        job = self._job
        paths = [job.root / job.plan.paths[video] for video in videos]
        settings = job.plan.settings
        events = decode(paths, settings.decoder, settings.resize, job.time_limit, job.device)
        with closing(events):
            for batch in batches(videos, events, job.size, job.device):
                wait()
                if not self._put((writer, batch)):
                    return

    def _keep(self, writer: ShardWriter) -> None:
        """Remembers a writer, and forgets those that are done: a long extraction has thousands."""
        with self._next_shard:
            self._writers = [it for it in self._writers if not it.done] + [writer]

    def _take(self) -> int | None:
        with self._next_shard:
            return next(self._shards, None)

    def _put(self, item: tuple[ShardWriter, Batch] | Exception | None) -> bool:
        while not self._stop.is_set():
            try:
                self._batches.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
