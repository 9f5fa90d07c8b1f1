"""What every data set is to the rest of extraction: clips with labels, groups and folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnact.features import Split


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

    folds: fold name -> the side of each video, in the order of ``videos``.
    warnings: what differs from the official data set, a line each, with the names.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    multi_label: bool
    videos: tuple[Video, ...]
    folds: Mapping[str, Sequence[Split]]
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Archive:
    """One file to fetch: where it is, and what its bytes must be if that is known."""

    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before any of it is on disk; shown by ``attnact datasets``."""

    name: str
    title: str
    videos: int
    classes: int
    folds: str
    metric: str
    homepage: str
    archives: tuple[Archive, ...]
    layout: str
