"""The feature cache, read: the only thing that both stages know.

    hmdb51.h5               the tables, and `features`: a virtual data set over the shards
    hmdb51.shards/00000.h5  the feature cubes of some videos, written whole or not at all

One file to open, many files to write; `feature_index` and `feature_writer` write them.
"""

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attnact.cache.chunks import Array, Ints, side_by_side
from attnact.cache.compact import Cubes, Stored, to_float
from attnact.cache.shards import DAMAGE, Shard, open_hdf5, shard_path
from attnact.cache.tables import MOVED_TO, index_digest, read_rows, read_text
from attnact.errors import CacheError, SchemaError
from attnact.machine.files import file_size
from attnact.machine.resources import cores
from attnact.machine.sealed import is_broken

SCHEMA = 2  # grows when an older reader could no longer make sense of the file
ROWS, CHANNELS = 7, 1024
LOCATIONS = ROWS * ROWS
CUBE = (ROWS, ROWS, CHANNELS)
OPEN = 256  # shards at a time: a system often lets a process open a thousand files
DTYPES = ("<f2", "|u1", "<f4")  # of features, as numpy writes them


class FeatureCache:
    """A finished cache, open for reading. Shards open when first read, in the process that reads.

    root: the folder that the paths of the videos start from.
    rows: a `VideoRow` a video. The tables below stand in the same order.
    paths: the video files, relative to `root`.
    labels: (videos,) class indices, or (videos, N) rows of 0 and 1 for a multi-label data set.
    groups: videos of one group never stand on both sides of a fold.
    first_frames: (videos,) where each video's frames begin in `features`, one after the other; the
        frames of videos that are no longer listed may lie between.
    folds: fold name -> (videos,) values of `Split`.
    dtype: of the stored features: float16, uint8, or float32 where they were imported from such
        files.
    failures: (path, reason) of each video that was given up.
    provenance: how the features were made, as text.

    Raises:
        CacheError: the file is missing, not a feature cache, of a newer schema, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_file() and is_broken(path):  # which HDF5 itself may not survive
            raise _damaged(path)
        with open_hdf5(path) as file, _damage_told(path):
            _check(file, path)
            self.name = str(file.attrs["name"])
            self.root = Path(file.attrs.get(MOVED_TO, file.attrs["root"]))
            self.digest = str(file.attrs["digest"])
            self.provenance: dict[str, str] = dict(file["provenance"].attrs)
            self.classes = read_text(file["classes"])
            self.rows = read_rows(file["videos"])
            self.paths = read_text(file["videos/path"])
            self.groups = read_text(file["videos/group"])
            self.labels: npt.NDArray[np.int64] = file["videos/label"][()]
            self.first_frames: npt.NDArray[np.int64] = file["videos/first_frame"][()]
            self.folds: dict[str, npt.NDArray[np.int8]] = {
                fold: sides[()] for fold, sides in file["folds"].items()
            }
            failures = file["failures"]
            self.failures = list(
                zip(read_text(failures["path"]), read_text(failures["reason"]), strict=True)
            )
            self.dtype: np.dtype[Any] = file["features"].dtype
            self._cube: tuple[int, ...] = file["features"].shape[1:]
            if self.dtype.str not in DTYPES or sorted(self._cube) != sorted(CUBE):
                raise ValueError(f"no features are {self.dtype}, {self._cube}")
            self._shard_starts = np.cumsum([0, *file["shard_frames"][()]])
        self._shards: dict[int, Shard] = {}
        self._pool: ThreadPoolExecutor | None = None

    @property
    def frame_counts(self) -> npt.NDArray[np.int64]:
        """(videos,) frames of each video."""
        return np.array([row.frames for row in self.rows], np.int64)

    @property
    def frame_rates(self) -> npt.NDArray[np.float64]:
        """(videos,) frames a second of each video; 0 where the file did not say."""
        return np.array([row.frame_rate for row in self.rows])

    @property
    def frames(self) -> int:
        """Frames of all videos."""
        return int(self.frame_counts.sum())

    @property
    def positions(self) -> int:
        """How many positions `features` has; those of videos that are no longer listed count."""
        return int(self._shard_starts[-1])

    @property
    def multi_label(self) -> bool:
        """Whether several classes may hold for one video."""
        return self.labels.ndim == 2

    @property
    def random_weights(self) -> bool:
        """Whether the backbone was not trained; whatever comes of it has to say so."""
        return self.provenance["weights_are_random"] == "true"

    def true_classes(self, video: int) -> list[str]:
        """The classes of a video, by name."""
        label = self.labels[video]
        return [self.classes[n] for n in (np.flatnonzero(label) if self.multi_label else [label])]

    def changed(self, video: int) -> bool:
        """Whether the video's file has another size than when its features were made."""
        then, now = self.rows[video].file_bytes, file_size(self.root / self.paths[video])
        return bool(then) and now not in (None, then)

    def read(self, first: int, count: int) -> Cubes:
        """The features of `count` frames in a row, (count, 7, 7, 1024); float32 if kept as uint8.

        Raises:
            CacheError: a shard is missing or does not decompress.
        """
        return to_float(self.read_stored(np.arange(first, first + count)))

    def read_stored(
        self, positions: Ints, empty: Callable[[tuple[int, ...], Any], Array] = np.empty
    ) -> Stored:
        """The feature cubes at these positions in `features`, in the cache's own type.

        Each chunk is decompressed once, several at the same time.

        Args:
            positions: (n,), in any order, some perhaps more than once.
            empty: makes the array for the cubes, of a shape and type.

        Raises:
            CacheError: a shard is missing or does not decompress.
        """
        cubes = empty((len(positions), *self._cube), self.dtype)
        compact = self.dtype == np.uint8
        scales = np.empty((len(positions), ROWS, ROWS), np.float32) if compact else None
        shards = np.searchsorted(self._shard_starts, positions, "right") - 1
        work: list[Callable[[], None]] = []
        for number in np.unique(shards).tolist():
            rows = np.flatnonzero(shards == number)
            frames = positions[rows] - self._shard_starts[number]
            work += self._shard(number).work(frames, rows, cubes, scales)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(cores(), "chunks")
        side_by_side(self._pool, cores(), work)
        return Stored(cubes if self._cube == CUBE else np.moveaxis(cubes, 1, -1), scales)

    def verify(self) -> Iterator[str | None]:
        """Reads every feature; for each video in turn what is wrong with it, or None."""
        block = 256  # frames at once, so that a long video needs no more memory than a short one
        for path, first, row in zip(self.paths, self.first_frames.tolist(), self.rows, strict=True):
            checksum, scales = 0, b""
            try:
                for start in range(0, row.frames, block):
                    stop = min(start + block, row.frames)
                    stored = self.read_stored(np.arange(first + start, first + stop))
                    checksum = zlib.crc32(self._as_in_file(stored.cubes).data, checksum)
                    scales += b"" if stored.scales is None else stored.scales.tobytes()
            except CacheError as error:
                yield f"{path}: {error}"
                continue
            checksum = zlib.crc32(scales, checksum)
            shard = shard_path(self.path, self._shard_of(first))
            changed = (
                f"{path}: its features changed on disk; delete {shard} and run "
                "`attnact features` again"
            )
            yield None if checksum == row.checksum else changed

    def disk_bytes(self) -> int:
        """What the index and the shards take on disk."""
        shards = [shard_path(self.path, i) for i in range(len(self._shard_starts) - 1)]
        return sum(file.stat().st_size for file in [self.path, *shards] if file.exists())

    def close(self) -> None:
        """Closes the shards; a later `read` opens them again."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    @property
    def parallel(self) -> bool:
        """Whether several cores decompress at the same time; a compression may not allow it."""
        return not self.positions or self._shard(self._shard_of(0)).features.direct

    def _as_in_file(self, cubes: Array) -> Array:
        return cubes if self._cube == CUBE else np.moveaxis(cubes, -1, 1)

    def _shard_of(self, frame: int) -> int:
        return int(np.searchsorted(self._shard_starts, frame, "right")) - 1

    def _shard(self, shard: int) -> Shard:
        found = self._shards.pop(shard, None) or Shard(shard_path(self.path, shard))
        self._shards[shard] = found  # the last one of those that are open
        if len(self._shards) > OPEN:  # whoever still reads from it keeps it open
            oldest, *_ = self._shards
            self._shards.pop(oldest, None)
        return found


def _check(file: Any, path: Path) -> None:
    try:
        schema = file.attrs.get("schema")
    except DAMAGE:
        schema = 0
    if schema is None:
        raise CacheError(f"{path}: an HDF5 file, but not a feature cache of attnact")
    if isinstance(schema, np.integer) and schema > SCHEMA:
        raise SchemaError(
            f"{path}: written by a newer attnact (schema {schema}; this one reads {SCHEMA}); "
            "upgrade attnact"
        )
    try:
        whole = bool(file.attrs.get("digest") == index_digest(file))
    except DAMAGE:
        whole = False
    if not whole:
        raise _damaged(path)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> CacheError:
    return CacheError(
        f"{path}: its tables are damaged; delete this one file (not the shards) and run "
        "`attnact features` again"
    )
