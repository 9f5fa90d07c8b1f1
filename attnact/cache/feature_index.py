"""The index of a feature cache, written over its finished shards: one file to open."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from attnact.cache.feature_writer import CUBE_IN_FILE
from attnact.cache.features import ROWS, SCHEMA, FeatureCache
from attnact.cache.shards import damage_told, open_hdf5, shard_path
from attnact.cache.tables import (
    MOVED_TO,
    VideoRow,
    index_digest,
    read_rows,
    text_column,
    write_rows,
)
from attnact.errors import CacheError
from attnact.machine.files import write_bytes
from attnact.machine.sealed import unsealed, with_digest


@dataclass(frozen=True)
class Listing:
    """The videos of a data set, those that fail included.

    paths: relative to `root`, with forward slashes.
    labels: (videos,) class indices, or (videos, N) rows of 0 and 1 for a multi-label data set.
    folds: fold name -> (videos,) values of `Split`.
    places: of each video in the extraction's list.
    """

    name: str
    root: Path
    classes: Sequence[str]
    paths: Sequence[str]
    labels: npt.NDArray[np.int64]
    groups: Sequence[str]
    folds: Mapping[str, npt.NDArray[np.int8]]
    places: Sequence[int]

    def entries(self) -> dict[int, int]:
        """Where each video stands here, by its place in the extraction's list."""
        return {place: i for i, place in enumerate(self.places)}


def write_index(
    cache: Path, shards: Sequence[int], listing: Listing, provenance: Mapping[str, str]
) -> FeatureCache:
    """Writes `<name>.h5` over these shards, which are finished, and opens it.

    Raises:
        CacheError: a shard is missing or broken, or two differ in dtype or layout.
    """
    rows, shard_frames, kinds = read_shards(cache, shards)
    if len(kinds) > 1:
        folder = shard_path(cache, 0).parent
        raise CacheError(f"{folder}: shards of other features among them; delete this folder")
    ((dtype, cube),) = kinds
    schema = SCHEMA if cube == CUBE_IN_FILE else 1  # shards from before there was a second
    # In memory: on a disk that fills up HDF5 says so in many lines, and may crash afterwards.
    with h5py.File(cache.name, "w", driver="core", backing_store=False) as file:
        file.attrs.update(schema=schema, name=listing.name, root=str(listing.root))
        file.create_group("provenance").attrs.update(provenance)
        file["classes"] = text_column(listing.classes)
        file["shard_frames"] = np.array(shard_frames, np.int64)
        _write_videos(file, rows, listing)
        _write_failures(file, rows, listing)
        over = partial(_over_shards, file, cache, shard_frames)
        over("features", cube, dtype)
        if dtype == np.uint8:
            over("scales", (ROWS, ROWS), np.float32)
        file.attrs["digest"] = index_digest(file)
        file.flush()
        content = with_digest(file.id.get_file_image())
    write_bytes(cache, content)
    for shard in shards:  # what processes that were killed have left of them
        for part in shard_path(cache, 0).parent.glob(f"{shard:05d}.h5.*.part"):
            part.unlink(missing_ok=True)
    return FeatureCache(cache)


def lists_shards(cache: FeatureCache, shards: Sequence[int], listing: Listing) -> bool:
    """Whether a cache's index is of these very shards, which may have been made anew since.

    Failures of videos that are no longer listed are of no account.

    Raises:
        CacheError: a shard is missing or broken.
    """
    rows, _, _ = read_shards(cache.path, shards)
    whole, first_frames = _whole(rows, listing)
    paths = set(listing.paths)
    return (
        cache.rows == whole
        and cache.first_frames.tolist() == first_frames
        and [failed for failed in cache.failures if failed[0] in paths] == _failed(rows, listing)
    )


def other_videos(cache: FeatureCache, listing: Listing) -> str:
    """That the cache lists others, in words, or nothing; what failed and is gone is none."""
    asked_for, known = set(listing.paths), {*cache.paths, *(path for path, _ in cache.failures)}
    gone, new = set(cache.paths) - asked_for, asked_for - known
    if gone or new:
        example = min(gone | new)
        return f"other videos ({len(gone)} gone, {len(new)} new, such as {example})"
    return ""


def unlike(cache: FeatureCache, listing: Listing) -> str:
    """What the same videos were listed with, where that is now another, in words; else nothing.

    Where the videos are is of no account.
    """
    if cache.folds.keys() != listing.folds.keys():
        return f"other folds ({', '.join(cache.folds)} then; {', '.join(listing.folds)} now)"
    if cache.name != listing.name:
        return f"another data set ({cache.name} then, {listing.name} now)"
    if cache.classes != list(listing.classes):
        apart = set(cache.classes) ^ set(listing.classes)
        return f"other classes ({f'such as {min(apart)}' if apart else 'in another order'})"
    places = {path: i for i, path in enumerate(listing.paths)}
    order = [places[path] for path in cache.paths]
    every = range(len(order))
    asked = (
        ("labels", cache.labels.tolist(), listing.labels[order].tolist()),
        ("groups", cache.groups, [listing.groups[i] for i in order]),
        ("folds", _sides(cache.folds, every), _sides(listing.folds, order)),
    )
    for what, made, wanted in asked:
        pairs = zip(cache.paths, made, wanted, strict=True)
        if example := next((path for path, one, other in pairs if one != other), ""):
            return f"other {what} (such as of {example})"
    return ""


def move_root(cache: FeatureCache, root: Path) -> FeatureCache:
    """The cache of videos that lie elsewhere now; to the runs on it it is the same."""
    image = io.BytesIO(unsealed(cache.path.read_bytes()))
    with h5py.File(image, "r+") as file:
        if MOVED_TO in file.attrs:
            del file.attrs[MOVED_TO]
        if file.attrs["root"] != str(root):
            file.attrs[MOVED_TO] = str(root)
    write_bytes(cache.path, with_digest(image.getvalue()))
    return FeatureCache(cache.path)


def _sides(folds: Mapping[str, npt.NDArray[np.int8]], order: Sequence[int]) -> list[dict[str, int]]:
    """On which side of each fold these videos are."""
    return [{name: int(sides[i]) for name, sides in folds.items()} for i in order]


def read_shards(cache: Path, shards: Sequence[int]) -> tuple[list[VideoRow], list[int], set[Any]]:
    """The rows of these shards, in their order, the kinds of features, and the frames of each shard
    up to the last; of the others, whose videos nobody asks for, none.
    """
    rows: list[VideoRow] = []
    shard_frames = [0] * (max(shards, default=-1) + 1)
    kinds = set()
    for shard in shards:
        path = shard_path(cache, shard)
        with open_hdf5(path) as file, damage_told(path):
            if file.attrs.get("digest", "") not in ("", index_digest(file)):  # older shards: none
                raise ValueError("its tables changed")
            rows += read_rows(file["videos"])
            shard_frames[shard] = len(file["features"])
            kinds.add((file["features"].dtype, file["features"].shape[1:]))
    return rows, shard_frames, kinds


def _whole(rows: Sequence[VideoRow], listing: Listing) -> tuple[list[VideoRow], list[int]]:
    """The rows of the listed videos that did not fail, and where the frames of each begin."""
    entries, first_frames = listing.entries(), np.cumsum([0, *(row.frames for row in rows)])
    whole = [i for i, row in enumerate(rows) if row.video in entries and not row.failure]
    return [rows[i] for i in whole], first_frames[whole].tolist()


def _failed(rows: Sequence[VideoRow], listing: Listing) -> list[tuple[str, str]]:
    """The path of each listed video that failed, and why."""
    entries = listing.entries()
    failed = [row for row in rows if row.video in entries and row.failure]
    return [(listing.paths[entries[row.video]], row.failure) for row in failed]


def _write_videos(file: Any, every: Sequence[VideoRow], listing: Listing) -> None:
    (rows, first_frames), entries = _whole(every, listing), listing.entries()
    order = [entries[row.video] for row in rows]
    videos = file.create_group("videos")
    write_rows(videos, rows)
    videos["path"] = text_column([listing.paths[i] for i in order])
    videos["name"] = text_column([PurePosixPath(listing.paths[i]).stem for i in order])
    videos["group"] = text_column([listing.groups[i] for i in order])
    videos["first_frame"] = np.array(first_frames, np.int64)
    videos["label"] = listing.labels[order]
    folds = file.create_group("folds", track_order=True)
    for fold, sides in listing.folds.items():
        folds[fold] = sides[order]


def _write_failures(file: Any, rows: Sequence[VideoRow], listing: Listing) -> None:
    failed, failures = _failed(rows, listing), file.create_group("failures")
    failures["path"] = text_column([path for path, _ in failed])
    failures["reason"] = text_column([reason for _, reason in failed])


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
