"""One shard of a feature cache: where it lies, and what is in it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  # teaches h5py the Zstandard and LZ4 filters
import numpy as np

from attnact.cache.chunks import Array, Chunks, Ints
from attnact.errors import CacheError

# What h5py raises where the bytes of a file make no sense.
DAMAGE = (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)


def shard_path(cache: Path, shard: int) -> Path:
    """`hmdb51.h5`, 3 → `hmdb51.shards/00003.h5`."""
    return cache.with_suffix(".shards") / f"{shard:05d}.h5"


def open_hdf5(path: Path) -> Any:
    """The file, open for reading.

    Raises:
        CacheError: it is missing, cannot be read, is no HDF5 file, damaged, or made to read other
            files.
    """
    if not path.is_file():
        raise CacheError(f"{path}: no such file; `attnact features` makes it")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if error.errno:  # the system's own, and no word on what is in the file
            told = os.strerror(error.errno)
            raise CacheError(f"{path}: cannot be read ({told})") from error
        raise CacheError(
            f"{path}: not a whole HDF5 file; if it is a cache, delete it and make it again"
        ) from error
    try:
        outside = next(_outside(file, set()), None)
    except DAMAGE as error:
        file.close()
        raise CacheError(f"{path}: damaged; delete it and make it again") from error
    if outside is not None:
        file.close()
        raise CacheError(f"{path}: refused, for its {outside} would be read from another file")
    return file


def _outside(group: Any, seen: set[int]) -> Iterator[str]:
    """What of a file HDF5 would read from others: by a link, or as the storage of a data set.

    Only the features of an index may: they are for other programs, and never read here.

    Args:
        group: where to look, and below.
        seen: addresses of groups, for one may hold itself.
    """
    for name in group:
        kind = group.get(name, getlink=True)
        place = f"{group.name}/{name}".lstrip("/")
        if isinstance(kind, h5py.ExternalLink):
            yield place
        elif isinstance(kind, h5py.HardLink):
            item = group[name]
            if isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address not in seen:
                    seen.add(address)
                    yield from _outside(item, seen)
            elif isinstance(item, h5py.Dataset) and (
                item.external or (item.is_virtual and place not in ("features", "scales"))
            ):
                yield place


@contextmanager
def damage_told(shard: Path) -> Iterator[None]:
    """Turns what h5py raises for a damaged shard into a CacheError."""
    try:
        yield
    except DAMAGE as error:
        raise CacheError(f"{shard}: damaged; delete it and run `attnact features` again") from error


class Shard:
    """One shard, open for reading.

    Raises:
        CacheError: it is missing or damaged; so do its methods.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_hdf5(path)
        with damage_told(path):
            self.features = Chunks(self._file["features"])
            self.scales = Chunks(self._file["scales"]) if "scales" in self._file else None

    def work(
        self, frames: Ints, rows: Ints, cubes: Array, scales: Array | None
    ) -> Iterator[Callable[[], None]]:
        """What puts these frames of the shard into these rows, in pieces for several threads."""
        for chunks, out in ((self.features, cubes), (self.scales, scales)):
            if chunks is not None and out is not None:
                for part in _by_chunk(frames, rows, chunks.frames):
                    yield partial(self._read, chunks, out, *part)

    def _read(self, chunks: Chunks, out: Array, chunk: int, frames: Ints, rows: Ints) -> None:
        with damage_told(self._path):
            chunks.read(chunk, frames, out, rows)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _by_chunk(frames: Ints, rows: Ints, size: int) -> Iterator[tuple[int, Ints, Ints]]:
    """The chunks that hold these frames: which, the frames counted from its first, their rows."""
    chunk, frame = np.divmod(frames, size)
    order = np.argsort(chunk, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(chunk[order])) + 1):
        yield int(chunk[part[0]]), frame[part], rows[part]
