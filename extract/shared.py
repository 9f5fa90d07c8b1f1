"""Memory that a process and a child of its own both see: what one puts there the other reads."""

import math
import mmap
import os
import tempfile
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from attnact.errors import DecoderError

COUNT = 2  # while one process works on what is in one place, the other fills the next


class Places:
    """Places for arrays of bytes, each of which grows to the largest that was put there.

    files: by which a child sees the same places, if it is given them; made here if not.
    """

    def __init__(self, files: Sequence[int] = ()) -> None:
        self.files = tuple(files) or tuple(_new_file() for _ in range(COUNT))
        self._maps: list[mmap.mmap | None] = [None] * len(self.files)

    def array(self, place: int, shape: Sequence[int]) -> npt.NDArray[np.uint8]:
        """What is in a place, as an array of this shape.

        Raises:
            DecoderError: there is no such room.
        """
        size, file, seen = math.prod(shape), self.files[place], self._maps[place]
        if seen is None or len(seen) < size:
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
        return np.frombuffer(seen, np.uint8, size).reshape(shape)

    def close(self) -> None:
        """Closes the files; arrays that are still in use stay."""
        self._maps.clear()
        for file in self.files:
            os.close(file)


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("attnact")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
