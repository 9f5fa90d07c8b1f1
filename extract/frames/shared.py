"""Memory that a process and a child of its own both see: what one puts there the other reads."""

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from attnact.errors import DecoderError

if TYPE_CHECKING:  # a decoder, which sees such memory, starts sooner without torch
    import torch

COUNT = 2  # while one process works on what is in one place, the other fills the next
STEP = 8 << 20  # bytes by which a place grows: to pin memory anew for each larger video takes long


class Places:
    """Places for arrays of bytes, each of which grows to the largest that was put there.

    files: by which a child sees the same places, if it is given them; made here if not.
    gpu: the one that copies from them, for which they are pinned; None for none.
    """

    def __init__(self, files: Sequence[int] = (), gpu: "torch.device | None" = None) -> None:
        self.files = tuple(files) or tuple(_new_file() for _ in range(COUNT))
        self._maps: list[mmap.mmap | None] = [None] * len(self.files)
        self._pinned = [False] * len(self.files)
        self._gpu = gpu

    def array(self, place: int, shape: Sequence[int]) -> npt.NDArray[np.uint8]:
        """What is in a place, as an array of this shape.

        Raises:
            DecoderError: there is no such room.
        """
        size, seen = math.prod(shape), self._maps[place]
        if seen is None or len(seen) < size:
            seen = self._grow(place, size)
        return np.frombuffer(seen, np.uint8, size).reshape(shape)

    def close(self) -> None:
        """Closes the files; arrays that are still in use stay."""
        for place, file in enumerate(self.files):
            self._forget(place)
            os.close(file)

    def _grow(self, place: int, size: int) -> mmap.mmap:
        self._forget(place)
        file, size = self.files[place], -(-size // STEP) * STEP
        try:
            if os.fstat(file).st_size < size:
                os.ftruncate(file, size)
            seen = self._maps[place] = mmap.mmap(file, 0)
        except OSError as error:
            raise DecoderError(
                f"no memory for the frames of a decoder ({error.strerror}), which counts as a "
                "file too: raise the limit of `ulimit -f`, or make room in memory, and type "
                "the same command again"
            ) from error
        if self._gpu is not None:
            from attnact.extract.frames.gpu import pin

            self._pinned[place] = pin(seen, self._gpu)
        return seen

    def _forget(self, place: int) -> None:
        seen, pinned = self._maps[place], self._pinned[place]
        self._maps[place], self._pinned[place] = None, False
        if seen is not None and self._gpu is not None and pinned:
            from attnact.extract.frames.gpu import unpin

            unpin(seen, self._gpu)


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("attnact")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
