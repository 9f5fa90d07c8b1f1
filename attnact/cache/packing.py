"""Feature cubes made into the chunks of a shard, by all cores at once.

HDF5 serves one thread at a time, compression included. So chunks are checked, rounded, turned and
compressed here, where threads need not wait for each other, and HDF5 gets them as they are to lie
in the file. The chunks of LZ4, whose frames are HDF5's own, it compresses itself.
"""

import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zstandard

from attnact.cache.chunks import Array
from attnact.cache.compact import Cubes, Scales, Stored, to_uint8
from attnact.errors import CacheError
from attnact.machine.resources import cores
from attnact.vocabulary import Compression

FRAMES = 4  # in a chunk: 392 KiB of float16
AT_ONCE = 8  # chunks that a thread is given, for to start and to end a piece of work costs as well
UNDER_WAY = 8  # such pieces of one shard: more than a batch of a few videos is divided into
LEVEL = 1  # of zstd and gzip, and what the filters of the data sets are told

_thread = threading.local()  # has a compressor, which serves one thread at a time


class Packed(NamedTuple):
    """A chunk, ready to be written.

    first: the frame of the shard that it begins with.
    frames: how many; the last chunk may have less than `FRAMES`.
    scales: (n, 7, 7) where the cubes are uint8, else None.
    checksums: of each piece of it that was added at once, the frames, and the CRC-32 of their cubes
        as they lie in the file.
    content: the chunk's bytes in the file; None where HDF5 has to compress it.
    cubes: (n, 1024, 7, 7), as they lie in the file; None where it has not.
    """

    first: int
    frames: int
    scales: Scales | None
    checksums: list[tuple[int, int]]
    content: Array | bytes | None
    cubes: Array | None


class Packer:
    """The frames of one shard, from `add` until they are written, in their order."""

    def __init__(self, path: Path, dtype: npt.DTypeLike, compression: Compression) -> None:
        """Begins at the first frame; `path` is named in errors."""
        self._pack = partial(pack, path, np.dtype(dtype), compression)
        self._written = 0  # chunks
        # The chunks after those, some at a time, and how many.
        self._under_way: deque[tuple[Future[list[Packed]], int]] = deque()
        self._rest: list[Cubes] = []  # the frames after those, which fill no chunk yet
        self._start = 0  # of what `rewind` forgets
        self._rest_at_start: list[Cubes] = []

    @property
    def frames(self) -> int:
        """All frames so far."""
        return self._chunks * FRAMES + sum(map(len, self._rest))

    def mark(self) -> None:
        """Remembers where we are, for `rewind`."""
        self._start, self._rest_at_start = self.frames, list(self._rest)

    def rewind(self) -> int:
        """Forgets the frames since the last `mark`; how many chunks before it are whole."""
        whole = self._start // FRAMES
        self._forget(whole)
        # What of a chunk was before the mark is packed once more, with other frames after it.
        self._rest = list(self._rest_at_start)
        self._written = min(self._written, whole)
        return whole

    def add(self, cubes: Cubes) -> Iterator[Packed]:
        """Takes frames, (n, 7, 7, 1024), and gives chunks to write: all of them, sooner or later.

        It is faster where they lie channel by channel in memory. Threads may still read the cubes
        afterwards. A chunk that was given counts as written when the next one is asked for.

        Raises:
            CacheError: a feature of a chunk does not fit, or is not a number.
        """
        while len(cubes):
            rest = sum(map(len, self._rest))
            whole = min(AT_ONCE, (rest + len(cubes)) // FRAMES)
            if not whole:
                self._rest.append(cubes.copy("K"))  # not all cubes for the sake of three
                return
            self._rest.append(cubes[: whole * FRAMES - rest])
            cubes = cubes[whole * FRAMES - rest :]
            self._begin(whole)
            yield from self._ready(UNDER_WAY)

    def finish(self) -> Iterator[Packed]:
        """Gives what is left to write; the last chunk may be filled up with zeros."""
        if self._rest:
            self._begin(1)
        yield from self._ready(0)

    def stop(self) -> None:
        """Gives up; no thread works on it any more."""
        self._forget(0)

    @property
    def _chunks(self) -> int:
        return self._written + sum(count for _, count in self._under_way)

    def _begin(self, count: int) -> None:
        work = _pool().submit(self._pack, self._chunks * FRAMES, self._rest)
        self._under_way.append((work, count))
        self._rest = []

    def _ready(self, most: int) -> Iterator[Packed]:
        """What is packed, and the oldest until at most so many pieces of work are under way."""
        while self._under_way and (len(self._under_way) > most or self._under_way[0][0].done()):
            packed, count = self._under_way[0][0].result(), self._under_way[0][1]
            yield from packed
            self._under_way.popleft()
            self._written += count

    def _forget(self, whole: int) -> None:
        """Does without the chunks under way but for those of the first `whole`."""
        dropped = []
        while self._chunks > whole and self._under_way:  # what was begun later holds none of them
            dropped.append(self._under_way.pop()[0])
        wait([it for it in dropped if not it.cancel()])


def pack(
    path: Path, dtype: np.dtype[Any], compression: Compression, first: int, parts: Sequence[Cubes]
) -> list[Packed]:
    """The chunks of the frames of all parts, (n, 7, 7, 1024) each.

    Raises:
        CacheError: a feature does not fit `dtype`, or is not a number.
    """
    cubes = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if not _finite(cubes):
        raise CacheError(f"{path}: features overflow {cubes.dtype}; are the weights right?")
    if dtype == np.uint8 and _negative(cubes):
        raise CacheError(f"{path}: features below zero; uint8 has none, float16 has")
    ends = np.cumsum([len(part) for part in parts[:-1]]).tolist()
    return [
        _chunk(dtype, compression, first + start, cubes[start : start + FRAMES], _cuts(start, ends))
        for start in range(0, len(cubes), FRAMES)
    ]


def _cuts(start: int, ends: Sequence[int]) -> list[int]:
    """Where the frames of a chunk that begins there were added apart, counted from its first."""
    return [end - start for end in ends if start < end < start + FRAMES]


def _chunk(
    dtype: np.dtype[Any], compression: Compression, first: int, cubes: Cubes, cuts: Sequence[int]
) -> Packed:
    stored = to_uint8(cubes) if dtype == np.uint8 else Stored(cubes, None)
    turned = np.moveaxis(stored.cubes, -1, 1)
    whole = np.empty((FRAMES, *turned.shape[1:]), dtype)
    whole[: len(turned)] = turned
    whole[len(turned) :] = 0
    compress = COMPRESS.get(compression)
    content = None if compress is None else compress(whole)
    in_file = whole[: len(turned)]
    checksums = [(len(piece), zlib.crc32(piece.data)) for piece in np.split(in_file, cuts)]
    kept = in_file if content is None else None  # not for as long as the chunk waits
    return Packed(first, len(in_file), stored.scales, checksums, content, kept)


def join(checksum: int, following: int, size: int) -> int:
    """CRC-32 of some bytes and of the `size` bytes that follow them, from that of each alone."""
    for bit, effect in enumerate(_effects(size)):
        if checksum >> bit & 1:
            following ^= effect
    return following


@cache
def _effects(size: int) -> list[int]:
    """What each bit of a CRC-32 changes in that of `size` bytes more: each by itself, by xor."""
    zeros = bytes(size)
    return [zlib.crc32(zeros, 1 << bit) ^ zlib.crc32(zeros) for bit in range(32)]


@cache
def _pool() -> ThreadPoolExecutor:
    """The threads of this process that pack, for all shards that it writes."""
    return ThreadPoolExecutor(cores(), "packing")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork has none of the threads


def _finite(cubes: Cubes) -> bool:
    """Whether all are numbers, by their bits: numpy takes 15 times as long for float16."""
    bits = np.dtype(f"u{cubes.itemsize}")
    infinity = np.array(np.inf, cubes.dtype).view(bits)
    return not ((cubes.view(bits) & infinity) == infinity).any()


def _negative(cubes: Cubes) -> bool:
    """Whether any is below zero; the sign bit tells at once that none is, or else -0.0."""
    return bool((cubes.view(f"i{cubes.itemsize}") < 0).any() and (cubes < 0).any())


def _zstd(chunk: Array) -> bytes:
    if not hasattr(_thread, "zstd"):
        _thread.zstd = zstandard.ZstdCompressor(LEVEL, write_content_size=True)
    return bytes(_thread.zstd.compress(chunk.data))


def _gzip(chunk: Array) -> bytes:
    return zlib.compress(chunk.data, LEVEL)


def _as_it_is(chunk: Array) -> Array:
    return chunk


# A whole chunk → its bytes in the file, as HDF5's filter of that name would make them
COMPRESS: dict[Compression, Callable[[Array], Array | bytes]] = {
    "zstd": _zstd,
    "gzip": _gzip,
    "none": _as_it_is,
}
