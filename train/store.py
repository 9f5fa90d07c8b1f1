"""Where the features live while a model trains: on the device, in host memory, or on disk.

All three give the same batches; `auto` takes the first that fits. Features stay as the cache has
them, float16 but for imported ones, until the batch is on the device.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from attnact.errors import RunError
from attnact.features import CHANNELS, LOCATIONS, FeatureCache
from attnact.progress import progress
from attnact.train.clips import Clips, Ints
from attnact.train.config import CLIP_FRAMES
from attnact.vocabulary import Place, Split

ROOM = 0.7  # of the free memory; the rest is for the model and for other programs


@dataclass(frozen=True)
class Batch:
    """Clips as a model takes them.

    X: feature cubes (B, T, L, C), float32.
    mask: 1 for each step that counts, (B, T).
    video: the position of each clip's video in the cache.
    """

    X: Tensor
    mask: Tensor
    video: Ints


class FeatureStore(Protocol):
    """Gives the features of clips."""

    device: torch.device
    place: str

    def gather(self, clips: Clips) -> Tensor:
        """Feature cubes (B, T, L, C), of the cache's dtype, wherever this store keeps them."""


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
    return frames * LOCATIONS * CHANNELS * cache.dtype.itemsize


def describe(cache: FeatureCache, videos: Ints, store: FeatureStore) -> str:
    """One line for people: how much there is and where it lives."""
    frames = int(cache.frame_counts[videos].sum())
    gibibytes = bytes_of(cache, videos) / 2**30
    return f"{frames:,} frames, {gibibytes:.2f} GiB, features on {store.place}"


class MemoryStore:
    """All features in one tensor; a batch is one gather."""

    def __init__(
        self, cache: FeatureCache, videos: Ints, kept: torch.device, device: torch.device
    ) -> None:
        self.device = device
        self.place = "the device" if kept.type != "cpu" else "host memory"
        counts = cache.frame_counts[videos]
        starts = np.cumsum([0, *counts])
        # Position in the cache -> position here, as an offset for each video.
        self._offset = np.zeros(len(cache.rows), np.int64)
        self._offset[videos] = starts[:-1] - cache.first_frames[videos]
        dtype = torch.from_numpy(np.empty(0, cache.dtype)).dtype
        shape = (int(starts[-1]), LOCATIONS, CHANNELS)
        self._features = torch.empty(shape, dtype=dtype, device=kept)
        with progress("loading features", len(videos), "videos") as advance:
            for video, start, count in zip(videos, starts, counts, strict=False):
                self._load(cache, int(cache.first_frames[video]), int(start), int(count))
                advance(1, "")
        cache.close()

    def _load(self, cache: FeatureCache, first: int, start: int, count: int) -> None:
        block = 512  # frames at once, so that a long video needs no second copy of itself
        for i in range(0, count, block):
            n = min(block, count - i)
            cubes = cache.read(first + i, n).reshape(n, LOCATIONS, CHANNELS)
            self._features[start + i : start + i + n].copy_(torch.from_numpy(cubes))

    def gather(self, clips: Clips) -> Tensor:
        """Feature cubes (B, T, L, C), of the cache's dtype, where the features are kept."""
        positions = clips.positions() + self._offset[clips.video][:, None]
        index = torch.from_numpy(positions.ravel()).to(self._features.device)
        cubes = self._features.index_select(0, index)
        return cubes.view(len(clips), CLIP_FRAMES, LOCATIONS, CHANNELS)


class DiskStore:
    """Reads each clip from the cache when it is needed, as one contiguous run of frames."""

    def __init__(self, cache: FeatureCache, device: torch.device) -> None:
        self.device, self.place = device, "disk"
        self._cache = FeatureCache(cache.path)  # its own files: it reads in another thread

    def gather(self, clips: Clips) -> Tensor:
        """Feature cubes (B, T, L, C), of the cache's dtype, in host memory."""
        out = np.empty((len(clips), CLIP_FRAMES, LOCATIONS, CHANNELS), self._cache.dtype)
        for row, positions in zip(out, clips.positions(), strict=True):
            first = int(positions[0])
            run = self._cache.read(first, int(positions[-1]) - first + 1)
            row[:] = run.reshape(-1, LOCATIONS, CHANNELS)[positions - first]
        return torch.from_numpy(out)


def batches(store: FeatureStore, clips: Clips, order: Ints, size: int) -> Iterator[Batch]:
    """The clips in this order, `size` at a time; the next is gathered while one is worked on."""
    parts = [clips[order[start : start + size]] for start in range(0, len(order), size)]
    with ThreadPoolExecutor(1, "gather") as ahead:
        coming = ahead.submit(store.gather, parts[0]) if parts else None
        for i, part in enumerate(parts):
            assert coming is not None
            cubes = coming.result()
            coming = ahead.submit(store.gather, parts[i + 1]) if i + 1 < len(parts) else None
            X = cubes.to(store.device, non_blocking=True).float()
            yield Batch(X, torch.from_numpy(part.mask()).to(store.device), part.video)


def _choose(needed: int, device: torch.device) -> Place:
    if device.type == "cuda" and needed < ROOM * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "host" if needed < ROOM * _free_memory() else "disk"


def _free_memory() -> int:
    """Bytes of host memory that programs can still have."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
