"""What every data set is to the rest of extraction: clips with labels, groups and folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnact.vocabulary import Split


@dataclass(frozen=True)
class Video:
    """One labelled video file.

    path: relative to the data set's root, with forward slashes; never leaves the root.
    labels: the classes that hold, as indices; exactly one unless the data set is multi-label.
    group: videos of one group (one scene, one person) never stand on both sides of a fold.
    """

    path: str
    labels: tuple[int, ...]
    group: str


@dataclass(frozen=True)
class Dataset:
    """The videos of a data set, in a fixed order, with its folds.

    root: the folder that the videos' paths start from.
    folds: fold name -> the side of each video, in the order of ``videos``.
    warnings: what differs from the official data set, a line each, with the names.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    multi_label: bool
    videos: tuple[Video, ...]
    folds: Mapping[str, Sequence[Split]]
    warnings: tuple[str, ...] = ()

    @property
    def paths(self) -> list[str]:
        """Of the videos, in their order."""
        return [video.path for video in self.videos]


@dataclass(frozen=True)
class Archive:
    """One file to fetch: its name, where it is, and what its bytes must be if that is known.

    name: as its authors call it; the suffix says how it is packed.
    checksum: ``sha256:`` or ``md5:`` and the hexadecimal digest; None where nobody published one.
    """

    name: str
    url: str
    checksum: str | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before any of it is on disk; shown by ``attnact datasets``.

    videos, classes: how many the official data set has; None where the user's own videos decide.
    layout: how the unpacked files lie under the root.
    """

    name: str
    title: str
    videos: int | None
    classes: int | None
    folds: str
    metric: str
    homepage: str
    archives: tuple[Archive, ...]
    layout: str


def straddling_groups(videos: Sequence[Video], sides: Sequence[Split]) -> list[str]:
    """Return the groups that have videos on both sides of a fold; a sound fold has none."""
    train = {video.group for video, side in zip(videos, sides, strict=True) if side is Split.TRAIN}
    test = {video.group for video, side in zip(videos, sides, strict=True) if side is Split.TEST}
    return sorted(train & test)
