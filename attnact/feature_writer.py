"""The feature cache, written: shards first, by any number of processes, then the index.

A shard is written under a temporary name, flushed, and renamed: a name that ends in `.h5` always
means a whole file, whatever happened to the process or the machine. The same shard gets the same
bytes however often its writing was interrupted.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from attnact.compact import Stored, to_uint8
from attnact.errors import CacheError
from attnact.features import (
    CHANNELS,
    ROWS,
    SCHEMA,
    Cubes,
    FeatureCache,
    VideoRow,
    damage_told,
    index_digest,
    open_hdf5,
    read_rows,
    shard_path,
)
from attnact.files import lock_beside, part_beside, publish, unlock, write_bytes
from attnact.interrupts import undisturbed
from attnact.sealed import with_digest
from attnact.sink import Sink
from attnact.tables import text_column, write_rows
from attnact.vocabulary import Compression

# Channel by channel, so that a channel's 49 locations lie beside each other: where it is zero it is
# zero at most of them, and the file is a fifth smaller than location by location.
CUBE_IN_FILE = (CHANNELS, ROWS, ROWS)
CHUNK_FRAMES = {"features": 4, "scales": 32}  # 392 KiB of float16
RELEASED = -1  # in place of a lock

# No shuffle filter: 84 % of these features are zero, and shuffling them makes the files larger.
_FILTERS: dict[Compression, Mapping[str, Any]] = {
    "zstd": hdf5plugin.Zstd(clevel=1),
    "lz4": hdf5plugin.LZ4(),
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "none": {},
}


class ShardWriter:
    """Writes one shard, video after video; nobody sees it before `close`."""

    @undisturbed()
    def __init__(
        self, path: Path, lock: int, compression: Compression, dtype: npt.DTypeLike
    ) -> None:
        """Use `claim`, which makes sure that no other process writes the same shard."""
        self.path, self._lock, self._part = path, lock, part_beside(path)
        self._rows: list[VideoRow] = []
        self._start = self._checksum = 0  # of the video being written
        self._scales_seen = b""  # of the video being written
        self._sink = Sink(self._part)
        # A chunk that two videos share is filled up in the chunk cache, then compressed once.
        self._file = h5py.File(self._sink, "w", rdcc_nbytes=16 << 20)
        self._features = self._data_set("features", CUBE_IN_FILE, dtype, compression)
        self._scales = None
        if self._features.dtype == np.uint8:
            self._scales = self._data_set("scales", (ROWS, ROWS), np.float32, compression)

    @classmethod
    def claim(
        cls, path: Path, compression: Compression, dtype: npt.DTypeLike = np.float16
    ) -> "ShardWriter | None":
        """A writer for the shard, or None when it is finished or in another process's hands."""
        lock = lock_beside(path)
        if lock is None:
            return None
        if path.exists():
            unlock(path, lock)
            return None
        try:
            return cls(path, lock, compression, dtype)
        except BaseException:  # such as a folder that may not be written
            unlock(path, lock)
            raise

    @property
    def done(self) -> bool:
        """Whether the shard was closed or abandoned."""
        return self._lock == RELEASED

    @undisturbed()
    def append(self, cubes: Cubes) -> None:
        """Adds the next frames' feature cubes, (n, 7, 7, 1024), of the video being written.

        Raises:
            CacheError: a feature does not fit the shard's dtype, or is not a number.
            OSError: the disk is full, or whatever else the system says; `abandon` the shard.
            ValueError: the cubes are of another dtype, and would be rounded.
        """
        dtype = self._features.dtype
        if self._scales is None and cubes.dtype != dtype:
            raise ValueError(f"{self.path} takes {dtype}, not {cubes.dtype}")
        if not np.isfinite(cubes).all():
            raise CacheError(
                f"{self.path}: features overflow {cubes.dtype}; are the weights right?"
            )
        if self._scales is not None and (cubes < 0).any():
            raise CacheError(f"{self.path}: features below zero; uint8 has none, float16 has")
        stored = Stored(cubes, None) if self._scales is None else to_uint8(cubes)
        in_file = np.ascontiguousarray(np.moveaxis(stored.cubes, -1, 1))
        self._checksum = zlib.crc32(in_file.data, self._checksum)
        _extend(self._features, in_file)
        if stored.scales is not None:
            self._scales_seen += stored.scales.tobytes()
            _extend(self._scales, stored.scales)
        self._sink.check()

    def end_video(self, row: VideoRow) -> None:
        """Keeps the frames appended since the last video, and counts and checks them into `row`."""
        frames = len(self._features) - self._start
        checksum = zlib.crc32(self._scales_seen, self._checksum)
        self._rows.append(replace(row, frames=frames, checksum=checksum))
        self._begin_video()

    @undisturbed()
    def drop_video(self, video: int, failure: str) -> None:
        """Forgets the frames appended since the last video, and records why."""
        for data_set in (self._features, self._scales):
            if data_set is not None:
                data_set.resize(self._start, axis=0)
        self._rows.append(VideoRow(video, failure=failure))
        self._begin_video()

    @undisturbed()
    def close(self) -> None:
        """Makes the shard appear under its name, whole.

        Raises:
            OSError: it cannot be written to its end; `abandon` it.
            ValueError: it was closed or abandoned before.
        """
        if self.done:
            raise ValueError("this shard was closed or abandoned before")
        write_rows(self._file.create_group("videos"), self._rows)
        self._file.attrs["digest"] = index_digest(self._file)
        self._file.close()
        self._sink.check()
        self._sink.close()
        publish(self._part, self.path)
        self._release()

    @undisturbed()
    def abandon(self) -> None:
        """Leaves no trace of a shard that is not closed; another process may claim it."""
        if self.done:
            return
        self._sink.give_up()
        self._file.close()
        self._sink.close()
        self._part.unlink(missing_ok=True)
        self._release()

    def _begin_video(self) -> None:
        self._start, self._checksum, self._scales_seen = len(self._features), 0, b""

    def _data_set(
        self, name: str, of_a_frame: tuple[int, ...], dtype: npt.DTypeLike, compression: Compression
    ) -> Any:
        return self._file.create_dataset(
            name,
            shape=(0, *of_a_frame),
            maxshape=(None, *of_a_frame),
            chunks=(CHUNK_FRAMES[name], *of_a_frame),
            dtype=dtype,
            **_FILTERS[compression],
        )

    def _release(self) -> None:
        unlock(self.path, self._lock)
        self._lock = RELEASED


def _extend(data_set: Any, frames: npt.NDArray[Any]) -> None:
    end = len(data_set)
    data_set.resize(end + len(frames), axis=0)
    data_set[end:] = frames


@dataclass(frozen=True)
class Listing:
    """The videos of an extraction, in its order, failed ones included.

    paths: relative to `root`, with forward slashes.
    labels: (videos,) class indices, or (videos, N) rows of 0 and 1 for a multi-label data set.
    folds: fold name -> (videos,) values of `Split`.
    """

    name: str
    root: Path
    classes: Sequence[str]
    paths: Sequence[str]
    labels: npt.NDArray[np.int64]
    groups: Sequence[str]
    folds: Mapping[str, npt.NDArray[np.int8]]


def write_index(
    cache: Path, shards: int, listing: Listing, provenance: Mapping[str, str]
) -> FeatureCache:
    """Writes `<name>.h5` over finished shards, and opens it.

    Raises:
        CacheError: a shard is missing or broken, or two differ in dtype or layout.
    """
    rows: list[VideoRow] = []
    shard_frames: list[int] = []
    kinds = set()
    for shard in range(shards):
        path = shard_path(cache, shard)
        with open_hdf5(path) as file, damage_told(path):
            if file.attrs.get("digest", "") not in ("", index_digest(file)):  # older shards: none
                raise ValueError("its tables changed")
            rows += read_rows(file["videos"])
            shard_frames.append(len(file["features"]))
            kinds.add((file["features"].dtype, file["features"].shape[1:]))
    if len(kinds) > 1:
        raise CacheError(f"{path.parent}: shards of other features among them; delete this folder")
    ((dtype, cube),) = kinds
    schema = SCHEMA if cube == CUBE_IN_FILE else 1  # shards from before there was a second
    # In memory: on a disk that fills up HDF5 says so in many lines, and may crash afterwards.
    with h5py.File(cache.name, "w", driver="core", backing_store=False) as file:
        file.attrs.update(schema=schema, name=listing.name, root=str(listing.root))
        file.create_group("provenance").attrs.update(provenance)
        file["classes"] = text_column(listing.classes)
        file["shard_frames"] = np.array(shard_frames, np.int64)
        _write_videos(file, [row for row in rows if not row.failure], listing)
        _write_failures(file, [row for row in rows if row.failure], listing)
        over = partial(_over_shards, file, cache, shard_frames)
        over("features", cube, dtype)
        if dtype == np.uint8:
            over("scales", (ROWS, ROWS), np.float32)
        file.attrs["digest"] = index_digest(file)
        file.flush()
        content = with_digest(file.id.get_file_image())
    write_bytes(cache, content)
    for part in shard_path(cache, 0).parent.glob("*.h5.*.part"):  # of processes that were killed
        part.unlink(missing_ok=True)
    return FeatureCache(cache)


def _write_videos(file: Any, rows: Sequence[VideoRow], listing: Listing) -> None:
    order = [row.video for row in rows]
    videos = file.create_group("videos")
    write_rows(videos, rows)
    videos["path"] = text_column([listing.paths[i] for i in order])
    videos["name"] = text_column([PurePosixPath(listing.paths[i]).stem for i in order])
    videos["group"] = text_column([listing.groups[i] for i in order])
    videos["first_frame"] = np.cumsum([0, *(row.frames for row in rows)])[:-1]
    videos["label"] = listing.labels[order]
    folds = file.create_group("folds", track_order=True)
    for fold, sides in listing.folds.items():
        folds[fold] = sides[order]


def _write_failures(file: Any, rows: Sequence[VideoRow], listing: Listing) -> None:
    failures = file.create_group("failures")
    failures["path"] = text_column([listing.paths[row.video] for row in rows])
    failures["reason"] = text_column([row.failure for row in rows])


def _over_shards(
    file: Any,
    cache: Path,
    shard_frames: Sequence[int],
    name: str,
    of_a_frame: tuple[int, ...],
    dtype: npt.DTypeLike,
) -> None:
    """A virtual data set over the shards, named relatively: the cache may move with them."""
    layout = h5py.VirtualLayout((sum(shard_frames), *of_a_frame), dtype)
    layout.dcpl.set_obj_track_times(False)  # or the same features would make other bytes each time
    start = 0
    for shard, frames in enumerate(shard_frames):
        if frames:
            path = str(shard_path(cache, shard).relative_to(cache.parent))
            layout[start : start + frames] = h5py.VirtualSource(
                path, name, (frames, *of_a_frame), dtype
            )
        start += frames
    file.create_virtual_dataset(name, layout)
