"""Where the features live while a model trains: on the device, in host memory, or on disk.

All three give the same batches; `auto` takes the first that fits. Features stay in the cache's own
type, float16 or uint8, until the batch is on the device and its step begins.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attnact.cache.features import CHANNELS, LOCATIONS, FeatureCache
from attnact.errors import RunError
from attnact.machine import ranks
from attnact.machine.resources import free_memory
from attnact.model.windows import Window, Windows
from attnact.train.config import CLIP_FRAMES
from attnact.train.feed.clips import Clips, Ints, windows
from attnact.train.feed.gathered import Gathered
from attnact.train.feed.places import DiskStore, FeatureStore, MemoryStore
from attnact.train.feed.widen import Stored, widen
from attnact.vocabulary import Place, Split

ROOM = 0.7  # of the free memory; the rest is for the model and for other programs


@dataclass(frozen=True)
class Batch:
    """Clips as a model takes them.

    X: feature cubes (B, T, L, C), floats; or windows over the frames that the clips share.
    mask: 1 for each step that counts, (B, T).
    video: the position of each clip's video in the cache.
    """

    X: Tensor | Windows
    mask: Tensor
    video: Ints


def open_store(
    cache: FeatureCache, videos: Ints, place: Place, device: torch.device
) -> FeatureStore:
    """A store for the features of these videos, where they fit.

    Raises:
        CacheError: a shard is missing or damaged.
    """
    if place == "auto":
        place = ranks.from_first(
            lambda: _choose(bytes_of(cache, videos, with_means=device.type == "cpu"), device)
        )
    if place == "disk":
        return DiskStore(cache, device)
    kept = device if place == "device" else torch.device("cpu")
    return MemoryStore(cache, videos, kept, device)


def videos_in(cache: FeatureCache, folds: Sequence[str]) -> Ints:
    """The videos, as positions in the cache, that stand on either side of any of these folds.

    Raises:
        RunError: the cache has no such fold.
    """
    unknown = [fold for fold in folds if fold not in cache.folds]
    if unknown:
        raise RunError(f"{cache.path}: no fold {unknown[0]!r}; it has {', '.join(cache.folds)}")
    used = np.any([cache.folds[fold] != Split.UNUSED for fold in folds], axis=0)
    return np.flatnonzero(used)


def untaught(cache: FeatureCache, fold: str) -> list[str]:
    """The classes of the fold's test videos that no training video shows."""
    shown = cache.labels if cache.multi_label else np.eye(len(cache.classes))[cache.labels]
    taught, tested = (shown[cache.folds[fold] == side].any(0) for side in (Split.TRAIN, Split.TEST))
    return [cache.classes[i] for i in np.flatnonzero(tested & ~taught)]


def bytes_of(cache: FeatureCache, videos: Ints, with_means: bool = False) -> int:
    """What the features of these videos take in memory; with the means that a CPU keeps of them."""
    frames = int(cache.frame_counts[videos].sum())
    scale = 4 if cache.dtype == np.uint8 else 0
    means = 4 * CHANNELS if with_means else 0
    return frames * (LOCATIONS * (CHANNELS * cache.dtype.itemsize + scale) + means)


def describe(cache: FeatureCache, videos: Ints, store: FeatureStore) -> str:
    """One line for people: how much there is, where it lives, and what is left there."""
    frames = int(cache.frame_counts[videos].sum())
    size = f"{bytes_of(cache, videos) / 2**30:.2f} GiB as {cache.dtype}"
    line = f"{frames:,} frames, {size}, features on {store.place}"
    if isinstance(store, DiskStore) and not store.parallel:
        line += ", which one core alone can decompress"
    if isinstance(store, MemoryStore):
        line += f" ({_free_on(store.kept) / 2**30:,.1f} GiB left)"
    return line


def batches(
    store: FeatureStore,
    clips: Clips,
    order: Ints | None,
    size: int,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Batch]:
    """The clips in this order, `size` at a time; None: as they stand, sharing their frames.

    Their features are widened to `dtype` on the device: on a CPU in the place of the last batch's,
    for new memory costs more than the work. While one batch is worked on, the next is read from the
    disk or copied to a GPU. From a CPU's memory they come as a step looks at them (`Gathered`).
    """
    every = np.arange(len(clips)) if order is None else order
    parts = [clips[every[start : start + size]] for start in range(0, len(every), size)]
    wanted = (_frames_of(part, shared=order is None) for part in parts)
    found: Generator[Windows, None, None]
    if store.device.type == "cpu" and isinstance(store, MemoryStore):
        found = _on_time(store, wanted, dtype)
    else:
        found = _ahead(store, wanted, dtype)
    with closing(found):
        for part, shared in zip(parts, found, strict=True):
            as_windows = order is None or isinstance(shared, Gathered)
            X = shared if as_windows else shared.gather(shared.frames)
            yield Batch(X, moved(part.mask(), store.device), part.video)


def moved(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Numbers on a device; the way to a GPU does not wait for what it is doing."""
    here = torch.from_numpy(values)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here


Wanted = tuple[Ints, list[Window]]  # the positions of a batch's frames, and its clips over them
Brought = tuple[Stored, list[Window], Any]  # and when they will have arrived


def _frames_of(part: Clips, shared: bool) -> Wanted:
    if shared:
        return windows(part)
    return part.positions().ravel(), [Window(0, len(part), CLIP_FRAMES, 1)]


def _on_time(
    store: MemoryStore, wanted: Iterator[Wanted], dtype: torch.dtype
) -> Generator[Windows, None, None]:
    """The batches, whose frames come when a step looks at them."""
    room = torch.empty(0, LOCATIONS, CHANNELS, dtype=dtype)
    for positions, over in wanted:
        room = _enough(room, len(positions))
        yield Gathered(store, positions, over, room[: len(positions)])


def _ahead(
    store: FeatureStore, wanted: Iterator[Wanted], dtype: torch.dtype
) -> Generator[Windows, None, None]:
    """The same, of which the next are brought to the device by another thread meanwhile."""
    on_gpu = store.device.type == "cuda"
    stream: Any = torch.cuda.Stream(store.device) if on_gpu else None  # type: ignore[no-untyped-call]
    # On a CPU two batches take turns; pinned memory torch keeps by itself.
    turns = [torch.empty(0, dtype=torch.uint8) for _ in range(2)]
    room = torch.empty(0, LOCATIONS, CHANNELS, dtype=dtype, device=store.device)

    def bring(positions: Ints, over: list[Window]) -> Brought:
        turns.reverse()
        turns[0] = _enough(turns[0], 0 if on_gpu else len(positions) * store.frame_bytes)
        with torch.cuda.stream(stream):  # of None it does nothing
            cubes = store.gather(positions, None if on_gpu else turns[0]).to(store.device)
            return cubes, over, stream.record_event() if stream else None

    with ThreadPoolExecutor(1, "gather") as thread:
        coming = _submit(thread, bring, wanted)
        while coming is not None:
            here, coming = coming, None
            try:
                cubes, over, arrived = here.result()
            finally:
                del here  # what it failed on would keep this frame, and all that the frame has
            coming = _submit(thread, bring, wanted)
            if arrived is not None:
                _hand_over(cubes, arrived, store.device)
            room = _enough(room, len(cubes.cubes))
            yield Windows(widen(cubes, room[: len(cubes.cubes)]), over, CLIP_FRAMES)


def _submit(
    thread: ThreadPoolExecutor, bring: Callable[..., Brought], wanted: Iterator[Wanted]
) -> Future[Brought] | None:
    batch = next(wanted, None)
    return None if batch is None else thread.submit(bring, *batch)


def _enough(room: Tensor, count: int) -> Tensor:
    """The room, or a larger one where it does not hold so many."""
    return room if len(room) >= count else room.new_empty(count, *room.shape[1:])


def _hand_over(cubes: Stored, arrived: Any, device: torch.device) -> None:
    """From the stream that brought them to the one that works on them, without waiting here."""
    current = torch.cuda.current_stream(device)
    current.wait_event(arrived)
    for tensor in cubes:
        if tensor is not None:
            tensor.record_stream(current)


def _choose(needed: int, device: torch.device) -> Place:
    if device.type == "cuda" and needed < ROOM * _free_on(device):
        return "device"
    each = free_memory() / ranks.on_this_machine()
    return "host" if needed < ROOM * each else "disk"


def _free_on(kept: torch.device) -> int:
    return int(torch.cuda.mem_get_info(kept)[0]) if kept.type == "cuda" else free_memory()
