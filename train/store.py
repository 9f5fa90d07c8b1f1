"""Where the features live while a model trains: on the device, in host memory, or on disk.

All three give the same batches; `auto` takes the first that fits. Features stay in the cache's own
type, float16 or uint8, until the batch is on the device and its step begins.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from attnact.errors import RunError
from attnact.features import CHANNELS, LOCATIONS, FeatureCache
from attnact.progress import progress
from attnact.train.clips import Clips, Ints, windows
from attnact.train.config import CLIP_FRAMES
from attnact.train.widen import Stored, widen
from attnact.vocabulary import Place, Split
from attnact.windows import Window, Windows

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


class FeatureStore(Protocol):
    """Gives the features of frames.

    device: where the model trains.
    place: where the features are, in words.
    """

    device: torch.device
    place: str

    def gather(self, positions: Ints) -> Stored:
        """Feature cubes (n, L, C), of the cache's dtype, wherever this store keeps them.

        positions: of the frames in the cache's `features`, (n,).
        """


def open_store(
    cache: FeatureCache, videos: Ints, place: Place, device: torch.device
) -> FeatureStore:
    """A store for the features of these videos, where they fit.

    Raises:
        CacheError: a shard is missing or damaged.
    """
    if place == "auto":
        place = _choose(bytes_of(cache, videos), device)
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


def bytes_of(cache: FeatureCache, videos: Ints) -> int:
    """What the features of these videos take in memory."""
    frames = int(cache.frame_counts[videos].sum())
    scale = 4 if cache.dtype == np.uint8 else 0
    return frames * LOCATIONS * (CHANNELS * cache.dtype.itemsize + scale)


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


class MemoryStore:
    """All features in one tensor, location by location; a batch is one gather."""

    def __init__(
        self, cache: FeatureCache, videos: Ints, kept: torch.device, device: torch.device
    ) -> None:
        self.device, self.kept = device, kept
        self.place = "the device" if kept.type != "cpu" else "host memory"
        counts = cache.frame_counts[videos]
        starts = np.cumsum([0, *counts])
        self._here = np.full(cache.frames, -1)  # position in the cache -> position here
        for first, start, count in zip(cache.first_frames[videos], starts, counts, strict=False):
            self._here[first : first + count] = np.arange(start, start + count)
        frames, dtype = int(starts[-1]), torch.from_numpy(np.empty(0, cache.dtype)).dtype
        cubes = torch.empty(frames, LOCATIONS, CHANNELS, dtype=dtype, device=kept)
        compact = dtype == torch.uint8
        self._features = Stored(
            cubes, torch.empty(frames, LOCATIONS, device=kept) if compact else None
        )
        with progress("loading features", len(videos), "videos") as advance:
            for video, start, count in zip(videos, starts, counts, strict=False):
                self._load(cache, int(cache.first_frames[video]), int(start), int(count))
                advance(1, "")
        cache.close()

    def _load(self, cache: FeatureCache, first: int, start: int, count: int) -> None:
        block = 512  # frames at once, so that a long video needs no second copy of itself
        for i in range(0, count, block):
            n = min(block, count - i)
            read = cache.read_stored(np.arange(first + i, first + i + n))
            for kept, found in zip(self._features, read, strict=True):
                if kept is not None and found is not None:
                    here = kept[start + i : start + i + n]
                    # Reordered here, where it costs a core's cache and no way to the device.
                    here.copy_(torch.from_numpy(found.reshape(here.shape)))

    def gather(self, positions: Ints) -> Stored:
        """Feature cubes (n, L, C), of the cache's dtype, where the features are kept."""
        cubes, scales = self._features
        index = torch.from_numpy(self._here[positions]).to(cubes.device)
        on_host = cubes.device.type == "cpu"
        shape = (len(index), LOCATIONS, CHANNELS)
        out = torch.empty(
            shape,
            dtype=cubes.dtype,
            device=cubes.device,
            pin_memory=on_host and self.device.type == "cuda",
        )
        torch.index_select(cubes, 0, index, out=out)
        return Stored(out, None if scales is None else scales.index_select(0, index))


class DiskStore:
    """Reads the frames of a batch from the cache when they are needed, several chunks at a time."""

    def __init__(self, cache: FeatureCache, device: torch.device) -> None:
        self.device, self.place = device, "disk"
        self._cache = FeatureCache(cache.path)  # its own files: it reads in another thread
        self.parallel = self._cache.parallel

    def gather(self, positions: Ints) -> Stored:
        """Feature cubes (n, L, C), of the cache's dtype, in host memory."""
        pinned = self.device.type == "cuda"

        def empty(shape: tuple[int, ...], dtype: Any) -> Any:
            like = torch.from_numpy(np.empty(0, dtype)).dtype
            return torch.empty(shape, dtype=like, pin_memory=pinned).numpy()

        cubes, scales = self._cache.read_stored(positions, empty)
        return Stored(
            torch.from_numpy(cubes).flatten(1, 2),
            None if scales is None else torch.from_numpy(scales).flatten(1),
        )


def batches(
    store: FeatureStore,
    clips: Clips,
    order: Ints | None,
    size: int,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Batch]:
    """The clips in this order, `size` at a time; None: as they stand, sharing their frames.

    The next is gathered, and copied to the device, while one is worked on; then it is widened to
    `dtype`.
    """
    every = np.arange(len(clips)) if order is None else order
    parts = [clips[every[start : start + size]] for start in range(0, len(every), size)]
    on_gpu = store.device.type == "cuda"
    stream = torch.cuda.Stream(store.device) if on_gpu else None

    def bring(part: Clips) -> tuple[Stored, list[Window], Any]:
        whole = [Window(0, len(part), CLIP_FRAMES, 1)]
        positions, over = windows(part) if order is None else (part.positions().ravel(), whole)
        with torch.cuda.stream(stream):  # of None it does nothing
            cubes = store.gather(positions).to(store.device)
            return cubes, over, stream.record_event() if stream else None

    with ThreadPoolExecutor(1, "gather") as ahead:
        coming = ahead.submit(bring, parts[0]) if parts else None
        for i, part in enumerate(parts):
            assert coming is not None
            cubes, over, arrived = coming.result()
            coming = ahead.submit(bring, parts[i + 1]) if i + 1 < len(parts) else None
            if arrived is not None:
                _hand_over(cubes, arrived, store.device)
            shared = Windows(widen(cubes, dtype), over, CLIP_FRAMES)
            X = shared if order is None else shared.gather(shared.frames)
            yield Batch(X, torch.from_numpy(part.mask()).to(store.device), part.video)


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
    return "host" if needed < ROOM * _free_memory() else "disk"


def _free_on(kept: torch.device) -> int:
    return int(torch.cuda.mem_get_info(kept)[0]) if kept.type == "cuda" else _free_memory()


def _free_memory() -> int:
    """Bytes of host memory that programs can still have."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
