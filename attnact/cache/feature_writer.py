"""The shards of a feature cache, written by any number of processes; `feature_index` comes after.

A shard is written under a temporary name, flushed, and renamed: a name that ends in `.h5` always
means a whole file, whatever happened to the process or the machine. The same shard gets the same
bytes however often its writing was interrupted.
"""

import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from attnact.cache import packing
from attnact.cache.compact import Cubes
from attnact.cache.features import CHANNELS, LOCATIONS, ROWS
from attnact.cache.packing import Packed, Packer, join
from attnact.cache.sink import Sink
from attnact.cache.tables import VideoRow, index_digest, write_rows
from attnact.machine.files import lock_beside, part_beside, publish, unlock
from attnact.machine.interrupts import undisturbed
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
    def drop_video(self, video: int, failure: str, file_bytes: int = 0) -> None:
        """Forgets the frames appended since the last video, and records why, and its file's size.

        Raises:
            OSError: as `append` does.
        """
        kept = self._packer.rewind() * packing.FRAMES
        if len(self._features) > kept:
            self._cut(kept)
        if self._checked >= self._start:
            self._checked, self._checksum = self._start, 0
        del self._scales[self._start * SCALES_BYTES :]
        self._rows.append(VideoRow(video, failure=failure, file_bytes=file_bytes))
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
        frames = packed.first + packed.frames
        self._features.id.set_extent((frames, *CUBE_IN_FILE))  # `resize` takes 16 µs more
        if packed.content is None:
            self._features[packed.first :] = packed.cubes
        else:
            self._features.id.write_direct_chunk((packed.first, 0, 0, 0), packed.content)
        if packed.scales is not None:
            self._scales[packed.first * SCALES_BYTES :] = packed.scales.tobytes()
        self._check(packed)

    def _check(self, packed: Packed) -> None:
        """Goes on with the checksums; a chunk may hold the frames of several videos."""
        frame = packed.first
        for frames, checksum in packed.checksums:
            if frame == self._checked:  # those before it were, with a video that was dropped
                size = frames * LOCATIONS * CHANNELS * self._dtype.itemsize
                self._checksum = join(self._checksum, checksum, size)
                self._checked += frames
                self._keep_checksums()
            frame += frames

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
