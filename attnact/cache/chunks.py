"""The chunks of a shard, read and decompressed by several threads at once.

HDF5 serves one thread at a time, decompression included. It tells where in the file a chunk lies,
though, and what was done to it: so the chunks of the usual compressions are read here, where
threads need not wait for each other. Those of another go through HDF5.
"""

import os
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_thread = threading.local()  # has a decompressor: a new one for each chunk costs a tenth

GZIP, ZSTD = 1, 32015  # as HDF5 numbers its filters
AT_ONCE = 8  # chunks that HDF5 is asked for in one call, of which each costs something by itself


class Chunks:
    """The chunks of an open data set, each of some frames in a row.

    frames: in a chunk; in several where HDF5 reads them, which count as one.
    direct: whether they are read beside each other, without HDF5.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._shape: tuple[int, ...] = dataset.chunks
        self._file: int = dataset.file.id.get_vfd_handle()
        made = dataset.id.get_create_plist()
        found: list[Any] = []
        dataset.id.chunk_iter(found.append)
        filters = tuple(made.get_filter(i)[0] for i in range(made.get_nfilters()))
        self._places = {chunk.chunk_offset[0] // self._shape[0]: chunk for chunk in found}
        skipped = any(chunk.filter_mask for chunk in found)  # HDF5 may leave a filter out
        self._unpack = None if skipped else UNPACK.get(filters)
        # Uncompressed chunks are views of the file in memory.
        plain = not skipped and not filters
        mapped = np.memmap(dataset.file.filename, np.uint8, "r") if plain else None
        self._map = None if mapped is None else mapped.view(np.ndarray)
        self.direct = plain or self._unpack is not None
        self.frames = self._shape[0] * (1 if self.direct else AT_ONCE)

    def read(self, chunk: int, frames: Ints, out: Array, rows: Ints) -> None:
        """Puts these frames of a chunk, counted from its first, into these rows of `out`.

        Raises:
            KeyError, OSError, ValueError: the chunk is missing or does not decompress.
        """
        there, here = _as_slice(rows), _as_slice(frames)
        if not self.direct:
            first, last = int(frames.min()), int(frames.max())
            start = chunk * self.frames
            read = self._dataset[start + first : start + last + 1]
            out[there] = read[_as_slice(frames - first)]
            return
        if self._map is not None:
            place = self._places[chunk]
            raw = self._map[place.byte_offset : place.byte_offset + place.size]
            out[there] = raw.view(out.dtype).reshape(self._shape)[here]
            return
        if isinstance(there, slice) and len(rows) == self.frames and isinstance(here, slice):
            self._fill(chunk, out[there])
            return
        block = np.empty(self._shape, out.dtype)
        self._fill(chunk, block)
        out[there] = block[here]

    def _fill(self, chunk: int, block: Array) -> None:
        place, unpack = self._places[chunk], self._unpack
        assert unpack is not None
        flat = block.reshape(-1).view(np.uint8).data
        filled = unpack(self._file, place.byte_offset, place.size, flat)
        if filled != len(flat):
            raise OSError(f"chunk {chunk}: {filled} bytes of {len(flat)}")


def side_by_side(
    pool: ThreadPoolExecutor, threads: int, work: Sequence[Callable[[], None]]
) -> None:
    """Does all of it, on the threads of the pool and on this one; each takes what comes next."""
    left = iter(work)

    def do() -> None:
        for piece in left:
            piece()

    others = [pool.submit(do) for _ in range(min(threads, len(work)) - 1)]
    try:
        do()
    finally:
        wait(others)  # for they write into what the caller may give up after an error
    for other in others:
        other.result()


def _as_slice(ascending: Ints) -> slice | Ints:
    """A slice where the numbers follow each other: numpy then copies once."""
    first, last = int(ascending[0]), int(ascending[-1])
    run = last - first == len(ascending) - 1 and bool((np.diff(ascending) == 1).all())
    return slice(first, last + 1) if run else ascending


def _gunzip(file: int, offset: int, size: int, out: memoryview) -> int:
    try:
        content = zlib.decompress(os.pread(file, size, offset), bufsize=len(out))
    except zlib.error as error:
        raise OSError(f"does not decompress: {error}") from error
    out[: len(content)] = content
    return len(content)


def _unzstd(file: int, offset: int, size: int, out: memoryview) -> int:
    packed = os.pread(file, size, offset)
    if not hasattr(_thread, "zstd"):
        _thread.zstd = zstandard.ZstdDecompressor()
    try:
        with _thread.zstd.stream_reader(packed) as stream:
            return int(stream.readinto(out))
    except zstandard.ZstdError as error:
        raise OSError(f"does not decompress: {error}") from error


# (open file, where the chunk begins, its bytes, what to fill) → bytes filled
UNPACK: dict[tuple[int, ...], Callable[[int, int, int, memoryview], int]] = {
    (GZIP,): _gunzip,
    (ZSTD,): _unzstd,
}
