"""Clips as windows over frames: what neighbouring clips share is there once.

Clips cut at every frame share 29 of their 30 frames with the next. As windows they are views of the
frames of their video, so that nothing is copied and what depends on a frame alone is computed once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """Clips in a row, of T frames each.

    first: the first frame of the first clip, as a position in the frames.
    count: of the clips.
    stride: frames from the start of a clip to the start of the next.
    step: frames from one frame of a clip to the next.
    """

    first: int
    count: int
    stride: int
    step: int


class Windows:
    """The clips of a batch, B of them, over frames (n, L, C).

    means: of each frame over its locations, (n, C), where that is known beforehand.
    """

    def __init__(
        self,
        frames: Tensor,
        windows: Sequence[Window],
        steps: int,
        means: Tensor | None = None,
    ) -> None:
        self._frames, self.steps, self.means = frames, steps, means
        self._windows = windows

    @classmethod
    def of(cls, X: Tensor) -> "Windows":
        """Clips (B, T, L, C) that share nothing."""
        B, T = X.shape[:2]
        return cls(X.flatten(0, 1), [Window(0, B, T, 1)], T)

    @property
    def frames(self) -> Tensor:
        """All frames, (n, L, C)."""
        return self._frames

    @property
    def locations(self) -> int:
        """L, of a frame."""
        return self._frames.shape[1]

    @property
    def in_a_row(self) -> bool:
        """Whether all clips are of one window."""
        return len(self._windows) == 1

    def at(self, t: int) -> Iterable[Tensor]:
        """Frame t of every clip, some clips at a time: (b, L, C), Σb = B.

        Each may take the place of the one before it.
        """
        return (part[:, t] for part in self.over(self.frames))

    def __len__(self) -> int:
        return sum(window.count for window in self._windows)

    @property
    def overlap(self) -> bool:
        """Whether a frame may belong to several clips."""
        return any(w.count > 1 and w.stride < self.steps * w.step for w in self._windows)

    def over(self, values: Tensor) -> list[Tensor]:
        """What each frame has, (n, …), for every frame of every clip: views (b, T, …), Σb = B."""
        frame = values.stride(0)
        return [
            values.as_strided(
                (w.count, self.steps, *values.shape[1:]),
                (w.stride * frame, w.step * frame, *values.stride()[1:]),
                values.storage_offset() + w.first * frame,
            )
            for w in self._windows
        ]

    def gather(self, values: Tensor) -> Tensor:
        """The same in one tensor, (B, T, …)."""
        parts = self.over(values)
        return torch.cat(parts) if len(parts) > 1 else parts[0]
