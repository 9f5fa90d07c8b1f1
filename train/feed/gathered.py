"""Clips whose features stay in memory as the cache has them, until a step looks at their frames."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from attnact.model.windows import Window, Windows
from attnact.train.config import CLIP_FRAMES
from attnact.train.feed.clips import Ints
from attnact.train.feed.places import MemoryStore
from attnact.train.feed.widen import FRAMES_AT_ONCE, widen


class Gathered(Windows):
    """The clips of a batch on a CPU, over frames (n, L, C) that a store in its memory has.

    A frame of each clip is gathered and widened in the cache of a core, some clips at a time, once
    to look and once on the way back. All frames are widened first, and read as floats each time,
    only where clips share them or a model wants all at once.
    """

    def __init__(
        self, store: MemoryStore, positions: Ints, windows: Sequence[Window], room: Tensor
    ) -> None:
        """`positions` are the frames', in the cache; all frames go to `room` if ever they must."""
        super().__init__(room, windows, CLIP_FRAMES, store.means(positions))
        self._store, self._positions, self._filled = store, positions, False
        self._of_clips = self.gather(torch.from_numpy(positions)).numpy()  # (B, T)
        self._wide = room.new_empty(FRAMES_AT_ONCE, *room.shape[1:])
        self._compact = torch.empty(FRAMES_AT_ONCE * store.frame_bytes, dtype=torch.uint8)

    @property
    def frames(self) -> Tensor:
        """See `Windows`."""
        if not self._filled:
            parts = torch.split(self._frames, FRAMES_AT_ONCE)
            for part, positions in zip(parts, _some(self._positions), strict=True):
                self._widen(positions, part)
            self._filled = True
        return self._frames

    def at(self, t: int) -> Iterable[Tensor]:
        """See `Windows`."""
        if self.overlap or self._filled:
            return super().at(t)
        each = _some(self._of_clips[:, t])
        return (self._widen(positions, self._wide[: len(positions)]) for positions in each)

    def _widen(self, positions: Ints, out: Tensor) -> Tensor:
        return widen(self._store.gather(positions, self._compact), out)


def _some(positions: Ints) -> Iterator[Ints]:
    for start in range(0, len(positions), FRAMES_AT_ONCE):
        yield positions[start : start + FRAMES_AT_ONCE]
