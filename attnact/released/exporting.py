"""A cache to the feature files that the released code reads.

They are neither compressed nor rounded: 196 KiB a frame, whose numbers are those of the cache.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from attnact.cache.features import FeatureCache
from attnact.cache.sink import Sink
from attnact.errors import CacheError
from attnact.machine.files import check_disk, full_disk_told, part_beside, publish, write_text
from attnact.machine.interrupts import undisturbed
from attnact.machine.progress import Advance, progress
from attnact.released.files import ROW_BYTES, WIDTH, part_files, to_rows
from attnact.vocabulary import Order, Split, Valid

BLOCK = 128  # frames at once: 25 MB
SIDES = {"test": Split.TEST, "unused": Split.UNUSED}

Videos = npt.NDArray[np.int64]  # positions in the cache


def export_released(
    cache: FeatureCache, folder: Path, order: Order, fold: str | None, valid: Valid | None = None
) -> dict[str, int]:
    """Writes the files of a fold; gives the number of videos of each part.

    Our folds have no valid part. The released code reads one for UCF-11 and Hollywood2; for HMDB-51
    it reads the test files twice. So none is written unless `valid` names the videos for it.

    Args:
        cache: of any type.
        folder: to write into, made if missing.
        order: of the values in a row; see `released.files`.
        fold: which videos are train and which test; None for the cache's first.
        valid: "test" repeats the test videos, by which the HMDB-51 code chooses its epoch;
            "unused" takes those on neither side: the valid videos of an imported cache.

    Raises:
        CacheError: the folder has such files, the fold is missing or has no videos for a part, a
            shard is damaged, or the disk has no room.
    """
    chosen = _choose(cache, next(iter(cache.folds), "") if fold is None else fold, valid)
    for part in ("train", "valid", "test"):
        for file in part_files(folder, part):
            if file.exists():
                raise CacheError(f"{file} is in the way; delete it or choose another folder")
    frames = sum(int(cache.frame_counts[videos].sum()) for videos in chosen.values())
    check_disk(folder, frames * ROW_BYTES)
    with progress("exporting", frames, "frames") as advance:
        for part, videos in chosen.items():
            _write_features(part_files(folder, part)[0], cache, videos, order, advance)
            _write_lists(folder, part, cache, videos)
    return {part: len(videos) for part, videos in chosen.items()}


def _choose(cache: FeatureCache, fold: str, valid: Valid | None) -> dict[str, Videos]:
    """The videos of each part that is to be written."""
    if fold not in cache.folds:
        known = ", ".join(cache.folds) or "none"
        raise CacheError(f"{cache.path}: no fold {fold!r}; it has {known}")
    sides = {"train": Split.TRAIN, "test": Split.TEST}
    if valid is not None:
        sides["valid"] = SIDES[valid]
    chosen = {part: np.flatnonzero(cache.folds[fold] == side) for part, side in sides.items()}
    for part, videos in chosen.items():
        if not len(videos):
            raise CacheError(f"{cache.path}: fold {fold} has no videos for {part}")
    return chosen


def _write_features(
    path: Path, cache: FeatureCache, videos: Videos, order: Order, advance: Advance
) -> None:
    part = part_beside(path)
    try:
        with full_disk_told(path), closing(Sink(part)) as sink:
            _fill(sink, cache, videos, order, advance)
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)


def _fill(sink: Sink, cache: FeatureCache, videos: Videos, order: Order, advance: Advance) -> None:
    shape = int(cache.frame_counts[videos].sum()), WIDTH
    with undisturbed():
        file = h5py.File(sink, "w")
        # A chunk a frame: the released code reads runs of frames, or every second one.
        features = file.create_dataset(
            "features", shape, "<f4", maxshape=(None, None), chunks=(1, WIDTH)
        )
    try:
        row = 0
        for video in videos.tolist():
            first, count = int(cache.first_frames[video]), cache.rows[video].frames
            for start in range(0, count, BLOCK):
                rows = to_rows(cache.read(first + start, min(BLOCK, count - start)), order)
                with undisturbed():
                    features[row : row + len(rows)] = rows
                sink.check()
                row += len(rows)
                advance(len(rows), "")
    finally:
        with undisturbed():
            file.close()
    sink.check()


def _write_lists(folder: Path, part: str, cache: FeatureCache, videos: Videos) -> None:
    labels = cache.labels[videos].reshape(len(videos), -1).tolist()
    lists: tuple[Sequence[str], ...] = (
        [str(cache.rows[video].frames) for video in videos],
        [cache.paths[video] for video in videos],
        [",".join(map(str, label)) for label in labels],
    )
    for file, lines in zip(part_files(folder, part)[1:], lists, strict=True):
        with full_disk_told(file):
            write_text(file, "".join(f"{line}\n" for line in lines))
