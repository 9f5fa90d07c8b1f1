"""The feature files of the released Theano code, as they lie on disk.

In a folder, for each part of train, valid and test:

    train_features.h5   `features`, (frames, 50176) float32: the videos one after the other
    train_framenum.txt  a line a video: its frames
    train_filename.txt  a line a video: its file, relative to the folder of the videos
    train_labels.txt    a line a video: the index of its class, or `0,1,0,...` for several classes

Channel c of location l stands at c * 49 + l of a row in the order "fortran", in which MATLAB made
the released files and the released code reads them, and at l * 1024 + c in the order "c".

Location l is 7 * row + column of the picture in both, as in our caches. The released README does
not say it, but the scripts that made its files do: they took the memory of Caffe's blob
(1024, rows, columns) as it was, and MATLAB's own order, columns of the picture first, never came
into it. The released notebook draws the 49 weights as seven rows likewise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from attnact.cache.compact import Cubes
from attnact.cache.features import CHANNELS, CUBE, LOCATIONS
from attnact.cache.shards import open_hdf5
from attnact.errors import CacheError
from attnact.vocabulary import HOLLYWOOD2_CLASSES, Order

FILES = ("features.h5", "framenum.txt", "filename.txt", "labels.txt")
WIDTH = LOCATIONS * CHANNELS
ROW_BYTES = WIDTH * 4

Rows = npt.NDArray[np.float32]  # (frames, 50176)
Label = tuple[int, ...]  # a class index alone, or 0 and 1 for each of several classes


@dataclass(frozen=True)
class Part:
    """The lists of one part; one entry a video."""

    name: str
    features: Path
    frames: list[int]
    paths: list[str]
    labels: list[Label]


def part_files(folder: Path, part: str) -> list[Path]:
    """Where the four files of a part lie, in the order of `FILES`."""
    return [folder / f"{part}_{file}" for file in FILES]


def read_part(folder: Path, name: str) -> Part:
    """The lists of a part, whose features are there; their lines may end as on Windows.

    Raises:
        CacheError: a file is missing, a line is no such thing, or the lists differ in length.
    """
    features, framenum, filename, labels = part_files(folder, name)
    if not features.is_file():
        raise CacheError(f"{features}: no such file")
    part = Part(name, features, _counts(framenum), _lines(filename), _labels(labels))
    for file, entries in ((filename, part.paths), (labels, part.labels)):
        if len(entries) != len(part.frames):
            raise CacheError(
                f"{file}: {len(entries)} lines, but {framenum.name} has {len(part.frames)}"
            )
    return part


def open_features(part: Part) -> Any:
    """The open file of a part's features, found to have the shape that its lists promise.

    Raises:
        CacheError: it is no HDF5 file, or has no features of this shape in float32 or less.
    """
    file = open_hdf5(part.features)
    try:
        _check_features(part, file.get("features"))
    except CacheError:
        file.close()
        raise
    return file


def to_cubes(rows: Rows, order: Order) -> Cubes:
    """Rows of a released file, (n, 50176), as cubes, (n, 7, 7, 1024)."""
    if order == "fortran":
        rows = rows.reshape(len(rows), CHANNELS, LOCATIONS).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(len(rows), *CUBE))


def to_rows(cubes: Cubes, order: Order) -> Rows:
    """Cubes, (n, 7, 7, 1024), as rows of a released file, (n, 50176)."""
    cubes = cubes.reshape(len(cubes), LOCATIONS, CHANNELS)
    if order == "fortran":
        cubes = cubes.swapaxes(1, 2)
    return cubes.reshape(len(cubes), WIDTH).astype(np.float32, copy=False)


def class_names(paths: Sequence[str], labels: Sequence[Label]) -> list[str]:
    """Names for the classes, which these files lack.

    The folder of each class's videos, where every class has one of its own; Hollywood2's twelve
    names for twelve classes that may hold together; else "class 0", "class 1", ...
    """
    width = len(labels[0])
    if width > 1:
        numbered = [f"class {i}" for i in range(width)]
        return list(HOLLYWOOD2_CLASSES) if width == len(HOLLYWOOD2_CLASSES) else numbered
    names = [f"class {i}" for i in range(max(labels)[0] + 1)]
    tops = [path.rpartition("/")[0].partition("/")[0] for path in paths]
    pairs = {(top, i) for top, (i,) in zip(tops, labels, strict=True)}
    folders = dict(pairs)
    if "" not in folders and len(set(folders.values())) == len(pairs):
        for folder, i in pairs:
            names[i] = folder
    return names


def _check_features(part: Part, features: Any) -> None:
    if not isinstance(features, h5py.Dataset):
        raise CacheError(f"{part.features}: holds no data set `features`")
    if features.ndim != 2 or features.shape[1] != WIDTH:
        raise CacheError(f"{part.features}: features of shape {features.shape}, not (n, {WIDTH})")
    if not np.can_cast(features.dtype, np.float32):
        raise CacheError(f"{part.features}: {features.dtype} features do not fit float32")
    if len(features) != sum(part.frames):
        raise CacheError(
            f"{part.features}: {len(features)} frames, but {part.name}_framenum.txt has "
            f"{sum(part.frames)}"
        )


def _lines(path: Path) -> list[str]:
    """The lines, without the blanks around them, as the released code reads them."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CacheError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CacheError(f"{path}: not UTF-8 text") from error
    lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if "" in lines:
        raise CacheError(f"{path}: line {lines.index('') + 1} is blank")
    return lines


def _counts(path: Path) -> list[int]:
    counts = []
    for number, line in enumerate(_lines(path), 1):
        counts.append(_natural(line))
        if counts[-1] < 1:
            raise CacheError(f"{path}: line {number}: {line!r} is no count of frames")
    return counts


def _labels(path: Path) -> list[Label]:
    labels: list[Label] = []
    for number, line in enumerate(_lines(path), 1):
        label = tuple(_natural(value.strip()) for value in line.split(","))
        if min(label) < 0 or (len(label) > 1 and max(label) > 1):
            raise CacheError(f"{path}: line {number}: {line!r} is no class index or row of 0 and 1")
        labels.append(label)
        if len(label) != len(labels[0]):
            raise CacheError(
                f"{path}: line {number} has {len(label)} values, line 1 has {len(labels[0])}"
            )
    return labels


def _natural(text: str) -> int:
    """The number that decimal digits spell; -1 for any other text."""
    return int(text) if text.isascii() and text.isdigit() else -1
