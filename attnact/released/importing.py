"""The released code's feature files to a cache, to the bit: such a cache holds float32.

The fold "1" trains and tests on what the files do. A video of the valid part that is in neither of
the other two is unused in that fold. The files say nothing of frame rates, which the released code
takes to be 30, nor of groups: every video is a group of its own.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attnact.cache.compact import Cubes
from attnact.cache.feature_index import Listing, write_index
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import FeatureCache
from attnact.cache.provenance import command, now, versions
from attnact.cache.shards import DAMAGE, shard_path
from attnact.cache.tables import VideoRow
from attnact.errors import CacheError
from attnact.machine.files import check_disk, full_disk_told, write_text
from attnact.machine.progress import Advance, progress
from attnact.released.files import (
    Label,
    Part,
    class_names,
    open_features,
    part_files,
    read_part,
    to_cubes,
)
from attnact.vocabulary import Compression, Order, Split

# Train and test first, so that a valid video that is one of theirs is stored in its place there.
SIDES = {"train": Split.TRAIN, "test": Split.TEST, "valid": Split.UNUSED}
FRAME_RATE = 30.0
SHARD_FRAMES = 2048  # or a little more: a video is never split
BLOCK = 128  # frames at once: 25 MB

COMPRESSION: Compression = "zstd"
KIB_PER_FRAME = 41  # measured, where 84 % of the features are zero and the rest is noise
UNKNOWN = "unknown (released files)"


@dataclass(frozen=True)
class _Video:
    """Where a video's features lie: `frames` rows from `first` on, in the file of a part."""

    path: str
    label: Label
    part: str
    first: int
    frames: int


def import_released(folder: Path, cache: Path, name: str, order: Order) -> FeatureCache:
    """Makes a cache of the files in a folder; one that was interrupted goes on.

    A video in the valid part and in another is stored once, as it is in the other. The cache looks
    for the videos themselves in data/NAME.

    Args:
        folder: holds train_features.h5 and the rest; the valid files may be missing.
        cache: the index to write, such as features/hmdb51.h5.
        name: of the data set.
        order: of the values in a row; see `released.files`.

    Raises:
        CacheError: files are missing, wrong or at odds, a feature is not finite, the disk has no
            room, or the cache was begun with other files.
    """
    wanted = [p for p in SIDES if p != "valid" or any(f.exists() for f in part_files(folder, p))]
    parts = [read_part(folder, part) for part in wanted]
    videos = _videos(parts)
    starts = np.cumsum([0, *(video.frames for video in videos)])[:-1]
    shards = np.unique(starts // SHARD_FRAMES, return_inverse=True)[1].tolist()
    with ExitStack() as opened:
        features = {
            part.name: opened.enter_context(open_features(part))["features"] for part in parts
        }
        missing = {shard for shard in shards if not shard_path(cache, shard).exists()}
        frames = sum(v.frames for v, shard in zip(videos, shards, strict=True) if shard in missing)
        check_disk(cache.parent, frames * KIB_PER_FRAME * 1024)
        _keep_plan(cache, parts, order)
        with progress("importing", frames, "frames") as advance:
            for shard in sorted(missing):
                members = [i for i, at in enumerate(shards) if at == shard]
                _write_shard(shard_path(cache, shard), members, videos, features, order, advance)
    if not all(shard_path(cache, shard).exists() for shard in missing):
        raise CacheError(f"{cache}: another process imports the rest; run this again after it")
    return write_index(
        cache, range(shards[-1] + 1), _listing(name, videos), _provenance(folder, order)
    )


def _videos(parts: Sequence[Part]) -> list[_Video]:
    """Every video once, in the order of the parts and of their lists."""
    found: dict[str, _Video] = {}
    for part in parts:
        first = 0
        for path, label, frames in zip(part.paths, part.labels, part.frames, strict=True):
            video = _Video(path, label, part.name, first, frames)
            first += frames
            known = found.setdefault(path, video)
            if known is not video:
                _check_again(part, video, known)
    widths = {len(video.label): video.part for video in found.values()}
    if len(widths) > 1:
        listed = " and ".join(f"{width} in {part}" for width, part in sorted(widths.items()))
        raise CacheError(f"{parts[0].features.parent}: labels of {listed}")
    return list(found.values())


def _check_again(part: Part, video: _Video, known: _Video) -> None:
    """Only a valid video may be listed again, and as the same."""
    if part.name != "valid" or known.part == "valid":
        raise CacheError(f"{part.features.parent}: {video.path} is in {known.part} and {part.name}")
    if (video.frames, video.label) != (known.frames, known.label):
        raise CacheError(
            f"{part.features.parent}: {video.path} has other frames or labels in {known.part} than "
            f"in {part.name}"
        )


def _write_shard(
    path: Path,
    members: Sequence[int],
    videos: Sequence[_Video],
    features: dict[str, Any],
    order: Order,
    advance: Advance,
) -> None:
    """Writes the videos `members`, unless another process does."""
    writer = ShardWriter.claim(path, COMPRESSION, np.float32)
    if writer is None:
        return
    try:
        with full_disk_told(path):
            for i in members:
                for cubes in _read(features[videos[i].part], videos[i], order):
                    writer.append(cubes)
                    advance(len(cubes), "")
                writer.end_video(VideoRow(i, frame_rate=FRAME_RATE))
            writer.close()
    finally:
        writer.abandon()  # which does nothing to a shard that was closed


def _read(features: Any, video: _Video, order: Order) -> Iterator[Cubes]:
    """The feature cubes of a video, some frames at a time."""
    where = f"{features.file.filename}: {video.path}"
    for start in range(0, video.frames, BLOCK):
        stop = min(start + BLOCK, video.frames)
        try:
            rows = features[video.first + start : video.first + stop].astype(np.float32, copy=False)
        except DAMAGE as error:
            raise CacheError(f"{where}: frames {start} to {stop - 1} cannot be read") from error
        if not np.isfinite(rows).all():
            raise CacheError(f"{where}: frames {start} to {stop - 1} hold what is no finite number")
        yield to_cubes(rows, order)


def _keep_plan(cache: Path, parts: Sequence[Part], order: Order) -> None:
    """Writes what the shards are made of; under this name, so that an extraction refuses it.

    Raises:
        CacheError: the cache was begun with something else.
    """
    path = shard_path(cache, 0).with_name("plan.json")
    files = [(part.name, part.paths, part.frames, _stamp(part.features)) for part in parts]
    plan = json.dumps({"released": files, "order": order})
    if path.exists() and path.read_text(encoding="utf-8") != plan:
        raise CacheError(
            f"{cache}: begun with other features or another --order; delete {cache} and "
            f"{path.parent}, or choose another --out"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, plan)


def _stamp(path: Path) -> tuple[int, int]:
    """Changes when the file does."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _listing(name: str, videos: Sequence[_Video]) -> Listing:
    paths, labels = [video.path for video in videos], [video.label for video in videos]
    rows = np.array(labels, np.int64)
    return Listing(
        name=name,
        root=Path("data", name).resolve(),
        classes=class_names(paths, labels),
        paths=paths,
        labels=rows if rows.shape[1] > 1 else rows[:, 0],
        groups=paths,
        folds={"1": np.array([SIDES[video.part] for video in videos], np.int8)},
        places=range(len(videos)),
    )


def _provenance(folder: Path, order: Order) -> dict[str, str]:
    """The keys of an extraction; how the features were made is nowhere written."""
    made = ("backbone", "weights", "weights_digest", "resize", "decoder", "weights_are_random")
    used = ("device", "torch", "torchvision", "av")
    return {
        **dict.fromkeys((*made, *used), UNKNOWN),
        "compression": COMPRESSION,
        "dtype": "float32",
        "source": str(folder.resolve()),
        "order": order,
        "date": now(),
        "command": command(),
        **versions("h5py", "numpy"),
    }
