"""Three places for features: the device, host memory, the disk. `store.py` chooses."""

import math
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from attnact.cache.features import CHANNELS, LOCATIONS, FeatureCache
from attnact.machine.progress import progress
from attnact.model.layers import frame_means
from attnact.train.feed.clips import Ints
from attnact.train.feed.widen import FRAMES_AT_ONCE, Stored, widen

CPU = torch.device("cpu")
Room = Tensor | None


class FeatureStore(Protocol):
    """Gives the features of frames.

    device: where the model trains.
    place: where the features are, in words.
    frame_bytes: what the feature cube of a frame takes.
    """

    device: torch.device
    place: str
    frame_bytes: int

    def gather(self, positions: Ints, room: Room = None) -> Stored:
        """Feature cubes (n, L, C), of the cache's dtype, wherever this store keeps them.

        Args:
            positions: in the cache's `features`, of frames that the store was opened for, (n,).
            room: host memory, as bytes, to put them into; new memory if not given.
        """


class MemoryStore:
    """All features in one tensor, location by location; a batch is one gather.

    Where a CPU trains, each frame's mean is there too: most models start from it, and some see
    nothing else.
    """

    def __init__(
        self, cache: FeatureCache, videos: Ints, kept: torch.device, device: torch.device
    ) -> None:
        self.device, self.kept, self.frame_bytes = device, kept, _frame_bytes(cache)
        self.place = "the device" if kept.type != "cpu" else "host memory"
        counts = cache.frame_counts[videos]
        starts = np.cumsum([0, *counts])
        self._here = np.full(cache.positions, -1)  # position in the cache -> position here
        for first, start, count in zip(cache.first_frames[videos], starts, counts, strict=False):
            self._here[first : first + count] = np.arange(start, start + count)
        frames, dtype = int(starts[-1]), torch_type(cache.dtype)
        cubes = torch.empty(frames, LOCATIONS, CHANNELS, dtype=dtype, device=kept)
        compact = dtype == torch.uint8
        self._features = Stored(
            cubes, torch.empty(frames, LOCATIONS, device=kept) if compact else None
        )
        self._means = torch.empty(frames if device.type == "cpu" else 0, CHANNELS)
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
            if len(self._means):
                self._average(start + i, start + i + n)

    def _average(self, start: int, stop: int) -> None:
        room = torch.empty(FRAMES_AT_ONCE, LOCATIONS, CHANNELS)
        for first in range(start, stop, FRAMES_AT_ONCE):
            here = slice(first, min(first + FRAMES_AT_ONCE, stop))
            cubes, scales = self._features
            some = Stored(cubes[here], None if scales is None else scales[here])
            wide = widen(some, room[: len(some.cubes)])
            self._means[here] = frame_means(wide, wide.dtype)

    def means(self, positions: Ints) -> Tensor:
        """The means of frames over their locations, (n, C); on a CPU alone."""
        return self._means.index_select(0, torch.from_numpy(self._here[positions]))

    def gather(self, positions: Ints, room: Room = None) -> Stored:
        """Feature cubes (n, L, C), of the cache's dtype, where the features are kept."""
        rows = self._here[positions]
        cubes, scales = self._features
        index = torch.from_numpy(rows).to(cubes.device)
        pinned = self.kept.type == "cpu" and self.device.type == "cuda"
        shape = (len(index), LOCATIONS, CHANNELS)
        out = _make(shape, cubes.dtype, self.kept, room, pinned)
        # As rows of eight bytes a number: for any other type torch gathers several times slower.
        torch.index_select(_in_rows(cubes), 0, index, out=_in_rows(out))
        if scales is not None and scales.device.type == "cpu":  # too few for torch's threads
            return Stored(out, torch.from_numpy(scales.numpy()[rows]))
        return Stored(out, None if scales is None else scales.index_select(0, index))


class DiskStore:
    """Reads the frames of a batch from the cache when they are needed, several chunks at a time."""

    def __init__(self, cache: FeatureCache, device: torch.device) -> None:
        self.device, self.place = device, "disk"
        self._cache = FeatureCache(cache.path)  # its own files: it reads in other threads
        self._turn = Lock()  # of those that read
        self.parallel, self.frame_bytes = self._cache.parallel, _frame_bytes(cache)

    def gather(self, positions: Ints, room: Room = None) -> Stored:
        """Feature cubes (n, L, C), of the cache's dtype, in host memory."""

        def empty(shape: tuple[int, ...], dtype: Any) -> Any:
            pinned = self.device.type == "cuda"
            return _make(shape, torch_type(dtype), CPU, room, pinned).numpy()

        with self._turn:
            cubes, scales = self._cache.read_stored(positions, empty)
        return Stored(
            torch.from_numpy(cubes).flatten(1, 2),
            None if scales is None else torch.from_numpy(scales).flatten(1),
        )


def torch_type(dtype: Any) -> torch.dtype:
    """numpy's type as torch's."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _make(
    shape: tuple[int, ...], dtype: torch.dtype, kept: torch.device, room: Room, pinned: bool
) -> Tensor:
    """A tensor in the room that is given, or else new."""
    if room is None:
        return torch.empty(shape, dtype=dtype, device=kept, pin_memory=pinned)
    return room[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)


def _in_rows(cubes: Tensor) -> Tensor:
    return cubes.flatten(1).view(torch.int64)


def _frame_bytes(cache: FeatureCache) -> int:
    return LOCATIONS * CHANNELS * cache.dtype.itemsize
