"""What an extraction will do, decided once and kept beside its shards.

Every process that works on a cache, at the same time or after a kill, follows the same plan: which
videos go into which shard, and with which settings. So the shards come out the same. A plan only
grows: videos that are new go into shards of their own, behind those that there are.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from attnact.cache.shards import shard_path
from attnact.errors import CacheError
from attnact.machine.files import lock_beside, unlock, write_text
from attnact.machine.sealed import check_seal, parse, seal
from attnact.vocabulary import (
    BackboneName,
    Compression,
    Decoder,
    FeatureType,
    Precision,
    Resize,
    Runtime,
)

# A shard is what a kill may cost: about a minute of a two-core CPU, a second of a large GPU. Each
# starts a decoder: in 17 shards in place of 4, sixty clips took 3 % longer on two cores.
SHARD_FRAMES = 2048
GUESSED_FRAMES = 256  # of a video whose header does not tell, so that such videos share out too

# Measured on clips of 224×224 frames with Caffe's weights; enough to refuse a disk that is full.
KIB_PER_FRAME: dict[FeatureType, dict[Compression, float]] = {
    "float16": {"zstd": 21, "lz4": 27, "gzip": 23, "none": 98},
    "uint8": {"zstd": 13, "lz4": 17, "gzip": 15, "none": 49.3},
}
RANDOM_IS_DENSER = 2.8  # random weights leave fewer zeros: 57 KiB of float16 with zstd


@dataclass(frozen=True)
class Settings:
    """What the features depend on; one cache never mixes two of these."""

    backbone: BackboneName
    weights: str
    weights_digest: str
    resize: Resize
    decoder: Decoder
    compression: Compression
    dtype: FeatureType = "float16"
    runtime: Runtime = "torch"  # as in every plan from before there was a choice
    precision: Precision = "float32"


@dataclass(frozen=True)
class Plan:
    """The videos in the order in which they were first asked for, and where each shard begins.

    paths: also of videos that are no longer asked for; of one that failed and was mended, twice.
    frames: what the headers promise for each video; 0 where unknown.
    starts: the first video of each shard.
    date, command: when and how the extraction was begun.
    """

    settings: Settings
    paths: tuple[str, ...]
    frames: tuple[int, ...]
    starts: tuple[int, ...]
    date: str
    command: str

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each video stands; one that was planned again, at the last of its places."""
        return {path: place for place, path in enumerate(self.paths)}

    def with_videos(self, paths: Sequence[str], frames: Sequence[int]) -> "Plan":
        """The plan with these videos at its end, in new shards."""
        if not paths:
            return self
        first = len(self.paths)
        return replace(
            self,
            paths=(*self.paths, *paths),
            frames=(*self.frames, *frames),
            starts=(*self.starts, *(first + start for start in divide(frames))),
        )

    def shard(self, shard: int) -> range:
        """The videos of one shard."""
        ends = (*self.starts[1:], len(self.paths))
        return range(self.starts[shard], ends[shard])

    def shards_of(self, paths: Iterable[str]) -> list[int]:
        """The shards that these videos are in."""
        wanted = {self.places[path] for path in paths if path in self.places}
        return [i for i in range(len(self.starts)) if not wanted.isdisjoint(self.shard(i))]

    def missing(self, cache: Path, paths: Iterable[str]) -> list[int]:
        """The shards of these videos that are not yet on disk."""
        return [i for i in self.shards_of(paths) if not shard_path(cache, i).exists()]

    def frames_in(self, shards: Sequence[int]) -> int:
        """Frames promised for these shards."""
        return sum(self.frames[video] for shard in shards for video in self.shard(shard))

    def bytes_in(self, shards: Sequence[int]) -> int:
        """About the disk space that these shards will take."""
        sizes = KIB_PER_FRAME[self.settings.dtype]
        kib = sizes[self.settings.compression]
        if self.settings.weights.startswith("random"):
            kib = min(RANDOM_IS_DENSER * kib, sizes["none"])
        return int(self.frames_in(shards) * kib * 1024)


def divide(frames: Sequence[int]) -> tuple[int, ...]:
    """The first video of each shard, so that a shard has about `SHARD_FRAMES` frames."""
    starts, filled = [0], 0
    for video, declared in enumerate(frames):
        count = declared or GUESSED_FRAMES
        if filled and filled + count > SHARD_FRAMES:
            starts.append(video)
            filled = 0
        filled += count
    return tuple(starts)


def plan_path(cache: Path) -> Path:
    """Where the plan of a cache lies."""
    return shard_path(cache, 0).with_name("plan.json")


def read_plan(cache: Path) -> Plan | None:
    """The plan of a cache that was begun; None when it was not.

    Raises:
        CacheError: the plan cannot be read.
    """
    path = plan_path(cache)
    try:
        plan = parse(path.read_text(encoding="utf-8"))
        check_seal(plan)
        if "released" in plan:
            raise CacheError(f"{cache}: made of the released code's files; choose another --out")
        return Plan(
            settings=Settings(**plan["settings"]),
            paths=tuple(plan["paths"]),
            frames=tuple(map(int, plan["frames"])),
            starts=tuple(map(int, plan["starts"])),
            date=str(plan["date"]),
            command=str(plan["command"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CacheError(
            f"{path}: damaged, or of a newer attnact; delete the folder {path.parent}"
        ) from error


def keep_plan(cache: Path, plan: Plan) -> Plan:
    """Writes the plan; or, if another process was first, its plan with the videos it lacks.

    Raises:
        CacheError: the cache was begun with other settings.
    """
    path = plan_path(cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    while (lock := lock_beside(path)) is None:
        time.sleep(0.01)  # another process is at this very place
    try:
        kept = read_plan(cache)
        if kept is not None:
            check_settings(cache, kept, plan.settings)
            plan = _grown(kept, plan)
        if plan != kept:
            write_text(path, json.dumps(seal(asdict(plan)), indent=1))
    finally:
        unlock(path, lock)
    return plan


def _grown(kept: Plan, plan: Plan) -> Plan:
    """What was kept, with what the plan has behind it; or, if it has not grown from that, lacks."""
    n = len(kept.paths)
    grew = (plan.paths[:n], plan.frames[:n]) == (kept.paths, kept.frames)
    known = set() if grew else set(kept.paths)
    more = [i for i in range(n if grew else 0, len(plan.paths)) if plan.paths[i] not in known]
    return kept.with_videos([plan.paths[i] for i in more], [plan.frames[i] for i in more])


def check_settings(cache: Path, plan: Plan, settings: Settings) -> None:
    """Holds what is asked for against what the cache was begun with.

    Raises:
        CacheError: they differ.
    """
    begun, asked = asdict(plan.settings), asdict(settings)
    if begun["weights_digest"] == asked["weights_digest"]:
        asked["weights"] = begun["weights"]  # the same in a file of another name
    for name in begun:
        if begun[name] != asked[name]:
            raise CacheError(
                f"{cache}: begun with {name} {begun[name]}, now asked for {asked[name]}; "
                f"delete {cache} and {plan_path(cache).parent}, or choose another --out"
            )
