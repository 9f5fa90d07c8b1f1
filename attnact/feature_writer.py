"""The feature cache, written: shards first, by any number of processes, then the index.

A shard is written under a temporary name, flushed, and renamed: a name that ends in `.h5` always
means a whole file, whatever happened to the process or the machine. The same shard gets the same
bytes however often its writing was interrupted.
"""

import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from attnact import packing
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
from attnact.packing import Packed, Packer, join
from attnact.sealed import with_digest
from attnact.sink import Sink
from attnact.tables import text_column, write_rows
from attnact.vocabulary import Compression

# Channel by channel, so that a channel's 49 locations lie beside each other: where it is zero it is
# zero at most of them, and the file is a fifth smaller than location by location.
CUBE_IN_FILE = (CHANNELS, ROWS, ROWS)
CHUNK_FRAMES = {"features": packing.FRAMES, "scales": 32}
SCALES_BYTES = ROWS * ROWS * 4  # of a frame, in a shard of uint8
RELEASED = -1  # in place of a lock

# No shuffle filter: 84 % of these features are zero, and shuffling them makes the files larger.
_FILTERS: dict[Compression, Mapping[str, Any]] = {
    "zstd": hdf5plugin.Zstd(clevel=packing.LEVEL),
    "lz4": hdf5plugin.LZ4(),
    "gzip": {"compression": "gzip", "compression_opts": packing.LEVEL},
    "none": {},
}


class ShardWriter:
    """Writes one shard, video after video; nobody sees it before `close`.

    All cores pack the chunks; the thread that calls writes them, in their order.
    """

    @undisturbed()
    def __init__(
        self, path: Path, lock: int, compression: Compression, dtype: npt.DTypeLike
    ) -> None:
        """Use `claim`, which makes sure that no other process writes the same shard."""
        self.path, self._lock, self._part = path, lock, part_beside(path)
        self._compression, self._dtype = compression, np.dtype(dtype)
        self._rows: list[VideoRow] = []
        self._start = 0  # the first frame of the video being written
        self._checked = self._checksum = 0  # frames, and of the video that the next one belongs to
        self._unchecked: deque[tuple[int, int]] = deque()  # (row, frame after its last)
        self._scales = bytearray()  # small enough to be kept until the end
        self._packer = Packer(path, dtype, compression)
        self._begin_file()

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

        Leave the cubes as they are afterwards: threads may still work on them, and what is wrong
        with them may be raised by a later call.

        Raises:
            CacheError: a feature does not fit the shard's dtype, or is not a number.
            OSError: the disk is full, or whatever else the system says; `abandon` the shard.
            ValueError: the cubes are of another dtype, and would be rounded.
        """
        if self._dtype not in (np.uint8, cubes.dtype):
            raise ValueError(f"{self.path} takes {self._dtype}, not {cubes.dtype}")
        for packed in self._packer.add(cubes):
            self._write(packed)
        self._sink.check()

    def end_video(self, row: VideoRow) -> None:
        """Keeps the frames appended since the last video, and counts and checks them into `row`."""
        end = self._packer.frames
        self._unchecked.append((len(self._rows), end))
        self._rows.append(replace(row, frames=end - self._start))
        self._keep_checksums()
        self._begin_video()

    @undisturbed()
    def drop_video(self, video: int, failure: str) -> None:
        """Forgets the frames appended since the last video, and records why.

        Raises:
            OSError: as `append` does.
        """
        kept = self._packer.rewind() * packing.FRAMES
        if len(self._features) > kept:
            self._cut(kept)
        if self._checked >= self._start:
            self._checked, self._checksum = self._start, 0
        del self._scales[self._start * SCALES_BYTES :]
        self._rows.append(VideoRow(video, failure=failure))
        self._begin_video()

    @undisturbed()
    def close(self) -> None:
        """Makes the shard appear under its name, whole.

        Raises:
            CacheError: as `append` does.
            OSError: it cannot be written to its end; `abandon` it.
            ValueError: it was closed or abandoned before.
        """
        if self.done:
            raise ValueError("this shard was closed or abandoned before")
        for packed in self._packer.finish():
            self._write(packed)
        if self._dtype == np.uint8:
            scales = np.frombuffer(self._scales, np.float32).reshape(-1, ROWS, ROWS)
            self._data_set("scales", scales)
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
        self._packer.stop()
        self._sink.give_up()
        self._file.close()
        self._sink.close()
        self._part.unlink(missing_ok=True)
        self._release()

    def _begin_video(self) -> None:
        self._start = self._packer.frames
        self._packer.mark()

    def _write(self, packed: Packed) -> None:
        frames = packed.first + len(packed.cubes)
        self._features.id.set_extent((frames, *CUBE_IN_FILE))  # `resize` takes three times as long
        if packed.content is None:
            self._features[packed.first :] = packed.cubes
        else:
            self._features.id.write_direct_chunk((packed.first, 0, 0, 0), packed.content)
        if packed.scales is not None:
            self._scales[packed.first * SCALES_BYTES :] = packed.scales.tobytes()
        self._check(packed)

    def _check(self, packed: Packed) -> None:
        """Goes on with the checksums; a chunk may hold the frames of several videos."""
        for frame, checksum in enumerate(packed.checksums, packed.first):
            if frame == self._checked:  # those before it were, with a video that was dropped
                self._checksum = join(self._checksum, checksum, packed.cubes[0].nbytes)
                self._checked += 1
                self._keep_checksums()

    def _keep_checksums(self) -> None:
        """Of the videos of which every frame was checked."""
        while self._unchecked and self._unchecked[0][1] == self._checked:
            i, end = self._unchecked.popleft()
            first = end - self._rows[i].frames
            scales = self._scales[first * SCALES_BYTES : end * SCALES_BYTES]
            self._rows[i] = replace(self._rows[i], checksum=zlib.crc32(scales, self._checksum))
            self._checksum = 0

    def _begin_file(self) -> None:
        self._sink = Sink(self._part)
        # No chunk cache, for each chunk is written once, whole.
        self._file = h5py.File(self._sink, "w", rdcc_nbytes=0)
        self._features = self._data_set("features", np.empty((0, *CUBE_IN_FILE), self._dtype))

    def _cut(self, frames: int) -> None:
        """Begins the file anew with its first frames: cut shorter, it would have other bytes."""
        self._sink.check()
        file, sink, features = self._file, self._sink, self._features
        try:
            self._begin_file()
            for first in range(0, frames, packing.FRAMES):
                left_out, content = features.id.read_direct_chunk((first, 0, 0, 0))
                self._features.id.set_extent((first + packing.FRAMES, *CUBE_IN_FILE))
                self._features.id.write_direct_chunk((first, 0, 0, 0), content, left_out)
        finally:
            sink.give_up()
            file.close()
            sink.close()
        self._sink.check()

    def _data_set(self, name: str, frames: npt.NDArray[Any]) -> Any:
        return self._file.create_dataset(
            name,
            data=frames,
            maxshape=(None, *frames.shape[1:]),
            chunks=(CHUNK_FRAMES[name], *frames.shape[1:]),
            **_FILTERS[self._compression],
        )

    def _release(self) -> None:
        unlock(self.path, self._lock)
        self._lock = RELEASED


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
