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


class Places:
    """Places for arrays of bytes, each of which grows to the largest that was put there.

    files: by which a child sees the same places, if it is given them; made here if not.
    gpu: that is to copy from them by itself, which needs them pinned; None for none.
    """

    def __init__(self, files: Sequence[int] = (), gpu: "torch.device | None" = None) -> None:
        self.files = tuple(files) or tuple(_new_file() for _ in range(COUNT))
        self._maps: list[mmap.mmap | None] = [None] * len(self.files)
        self._gpu = gpu

    def array(self, place: int, shape: Sequence[int]) -> npt.NDArray[np.uint8]:
        """What is in a place, as an array of this shape.

        Raises:
            DecoderError: there is no such room.
        """
        size, seen = math.prod(shape), self._maps[place]
        if seen is None or len(seen) < size:
            self._forget(place)
            seen = self._maps[place] = self._seen(self.files[place], size)
        return np.frombuffer(seen, np.uint8, size).reshape(shape)

    def close(self) -> None:
        """Closes the files; arrays that are still in use stay."""
        for place, file in enumerate(self.files):
            self._forget(place)
            os.close(file)

    def _seen(self, file: int, size: int) -> mmap.mmap:
        try:
            if os.fstat(file).st_size < size:
                os.ftruncate(file, size)
            seen = mmap.mmap(file, 0)
            if self._gpu is not None:
                _pin(seen, self._gpu)
        except OSError as error:
            raise DecoderError(
                f"no memory for the frames of a decoder ({error.strerror}), which counts as a "
                "file too: raise the limit of `ulimit -f`, or make room in memory, and type "
                "the same command again"
            ) from error
        return seen

    def _forget(self, place: int) -> None:
        seen, self._maps[place] = self._maps[place], None
        if seen is not None and self._gpu is not None:
            _unpin(seen, self._gpu)


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("attnact")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _pin(seen: mmap.mmap, gpu: "torch.device") -> None:
    """Raises OSError where the GPU does not take it."""
    import torch

    whole = np.frombuffer(seen, np.uint8)
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    with torch.cuda.device(gpu):
        answer = runtime.cudaHostRegister(whole.ctypes.data, whole.nbytes, 0)
    if int(answer) != 0:
        raise OSError(int(answer), f"cudaHostRegister: {runtime.cudaGetErrorString(answer)}")


def _unpin(seen: mmap.mmap, gpu: "torch.device") -> None:
    import torch

    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    with torch.cuda.device(gpu):
        runtime.cudaHostUnregister(np.frombuffer(seen, np.uint8).ctypes.data)
