"""The feature cache, read: the only thing that both stages know.

    hmdb51.h5               the tables, and `features`: a virtual data set over the shards
    hmdb51.shards/00000.h5  the feature cubes of some videos, written whole or not at all

One file to open, many files to write; `feature_writer` writes them.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  # teaches h5py the Zstandard and LZ4 filters
import numpy as np
import numpy.typing as npt

from attnact.errors import CacheError

SCHEMA = 1  # grows when an older reader could no longer make sense of the file
ROWS, CHANNELS = 7, 1024
LOCATIONS = ROWS * ROWS
CUBE = (ROWS, ROWS, CHANNELS)

# What h5py raises where the bytes of a file make no sense.
DAMAGE = (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)

Cubes = npt.NDArray[np.float16 | np.float32]  # (frames, 7, 7, 1024)


@dataclass(frozen=True)
class VideoRow:
    """What is known of one video's features; a column each in the files.

    video: position in the extraction's list of videos.
    declared_frames: what the file's header promised, 0 where it did not.
    checksum: CRC-32 of the video's feature cubes as they are stored, uncompressed.
    failure: why the video was given up; empty for a video that the cache holds.
    """

    video: int
    frames: int = 0
    frame_rate: float = 0.0
    width: int = 0
    height: int = 0
    declared_frames: int = 0
    decoder: str = ""
    checksum: int = 0
    failure: str = ""


class FeatureCache:
    """A finished cache, open for reading. Shards open when first read, in the process that reads.

    rows: a `VideoRow` a video. The tables below stand in the same order.
    paths: the video files, relative to `root`.
    labels: (videos,) class indices, or (videos, N) rows of 0 and 1 for a multi-label data set.
    groups: videos of one group never stand on both sides of a fold.
    first_frames: (videos,) where each video's frames begin in `features`.
    folds: fold name -> (videos,) values of `Split`.
    dtype: of the features: float16, or float32 where they were imported from such files.
    failures: (path, reason) of each video that was given up.
    provenance: how the features were made, as text.

    Raises:
        CacheError: the file is missing, not a feature cache, of a newer schema, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_hdf5(path) as file:
            _check(file, path)
            self.name = str(file.attrs["name"])
            self.root = Path(file.attrs["root"])
            self.digest = str(file.attrs["digest"])
            self.provenance: dict[str, str] = dict(file["provenance"].attrs)
            self.classes = _strings(file["classes"])
            self.rows = read_rows(file["videos"])
            self.paths = _strings(file["videos/path"])
            self.groups = _strings(file["videos/group"])
            self.labels: npt.NDArray[np.int64] = file["videos/label"][()]
            self.first_frames: npt.NDArray[np.int64] = file["videos/first_frame"][()]
            self.folds: dict[str, npt.NDArray[np.int8]] = {
                fold: sides[()] for fold, sides in file["folds"].items()
            }
            failures = file["failures"]
            self.failures = list(
                zip(_strings(failures["path"]), _strings(failures["reason"]), strict=True)
            )
            self.dtype: np.dtype[Any] = file["features"].dtype
            self._shard_starts = np.cumsum([0, *file["shard_frames"][()]])
        self._shards: dict[int, Any] = {}

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
        return int(self._shard_starts[-1])

    @property
    def multi_label(self) -> bool:
        """Whether several classes may hold for one video."""
        return self.labels.ndim == 2

    @property
    def random_weights(self) -> bool:
        """Whether the backbone was not trained; whatever comes of it has to say so."""
        return self.provenance["weights_are_random"] == "true"

    def read(self, first: int, count: int) -> Cubes:
        """The feature cubes of `count` frames in a row, (count, 7, 7, 1024), of `dtype`.

        Raises:
            CacheError: a shard is missing or does not decompress.
        """
        cubes = np.empty((count, *CUBE), self.dtype)
        done = 0
        while done < count:
            shard = self._shard_of(first + done)
            start = first + done - int(self._shard_starts[shard])
            stop = min(start + count - done, int(np.diff(self._shard_starts)[shard]))
            here = np.s_[done : done + stop - start]
            with damage_told(shard_path(self.path, shard)):
                self._shard(shard).read_direct(cubes, np.s_[start:stop], here)
            done += stop - start
        return cubes

    def verify(self) -> Iterator[str | None]:
        """Reads every feature; for each video in turn what is wrong with it, or None."""
        block = 256  # frames at once, so that a long video needs no more memory than a short one
        for path, first, row in zip(self.paths, self.first_frames.tolist(), self.rows, strict=True):
            checksum = 0
            try:
                for start in range(0, row.frames, block):
                    cubes = self.read(first + start, min(block, row.frames - start))
                    checksum = zlib.crc32(cubes.data, checksum)
            except CacheError as error:
                yield f"{path}: {error}"
                continue
            shard = shard_path(self.path, self._shard_of(first))
            changed = (
                f"{path}: its features changed on disk; delete {shard} and run "
                "`attnact features` again"
            )
            yield None if checksum == row.checksum else changed

    def disk_bytes(self) -> int:
        """What the index and the shards take on disk."""
        shards = [shard_path(self.path, i) for i in range(len(self._shard_starts) - 1)]
        return sum(file.stat().st_size for file in [self.path, *shards])

    def close(self) -> None:
        """Closes the shards; a later `read` opens them again."""
        for features in self._shards.values():
            features.file.close()
        self._shards.clear()

    def _shard_of(self, frame: int) -> int:
        return int(np.searchsorted(self._shard_starts, frame, "right")) - 1

    def _shard(self, shard: int) -> Any:
        if shard not in self._shards:
            self._shards[shard] = open_hdf5(shard_path(self.path, shard))["features"]
        return self._shards[shard]


def shard_path(cache: Path, shard: int) -> Path:
    """`hmdb51.h5`, 3 → `hmdb51.shards/00003.h5`."""
    return cache.with_suffix(".shards") / f"{shard:05d}.h5"


def open_hdf5(path: Path) -> Any:
    """The file, open for reading.

    Raises:
        CacheError: it is missing or no HDF5 file.
    """
    if not path.is_file():
        raise CacheError(f"{path}: no such file; `attnact features` makes it")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise CacheError(
            f"{path}: not a whole HDF5 file; if it is a cache, delete it and make it again"
        ) from error


@contextmanager
def damage_told(shard: Path) -> Iterator[None]:
    """Turns what h5py raises for a damaged shard into a CacheError."""
    try:
        yield
    except DAMAGE as error:
        raise CacheError(f"{shard}: damaged; delete it and run `attnact features` again") from error


def read_rows(group: Any) -> list[VideoRow]:
    """The rows of a `videos` group of a shard or an index."""
    columns = [
        _strings(group[field.name]) if field.type is str else group[field.name][()].tolist()
        for field in fields(VideoRow)
    ]
    return [VideoRow(*values) for values in zip(*columns, strict=True)]


def index_digest(file: Any) -> str:
    """SHA-256 of every table and attribute of an index, leaving out the features and itself."""
    attributes = {key: str(value) for key, value in file.attrs.items() if key != "digest"}
    content: dict[str, Any] = {"": attributes}

    def add(name: str, item: Any) -> None:
        content[name] = {key: str(value) for key, value in item.attrs.items()}
        if isinstance(item, h5py.Dataset) and name != "features":
            text = h5py.check_string_dtype(item.dtype)
            content[name][""] = _strings(item) if text else item[()].tolist()

    file.visititems(add)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check(file: Any, path: Path) -> None:
    try:
        schema = file.attrs.get("schema")
    except DAMAGE:
        schema = 0
    if schema is None:
        raise CacheError(f"{path}: an HDF5 file, but not a feature cache of attnact")
    if isinstance(schema, np.integer) and schema > SCHEMA:
        raise CacheError(
            f"{path}: written by a newer attnact (schema {schema}; this one reads {SCHEMA}); "
            "upgrade attnact"
        )
    try:
        whole = bool(file.attrs.get("digest") == index_digest(file))
    except DAMAGE:
        whole = False
    if not whole:
        raise CacheError(
            f"{path}: its tables are damaged; delete this one file (not the shards) and run "
            "`attnact features` again"
        )


def _strings(dataset: Any) -> list[str]:
    return list(dataset.asstr()[()])
