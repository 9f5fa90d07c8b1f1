"""Your own videos: a folder with a sub-folder for each class, or a list of them in a CSV file."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from attnact.errors import DatasetError
from attnact.extract.datasets.base import Dataset, DatasetInfo, Video, straddling_groups
from attnact.extract.datasets.disk import files_below, folders, is_video, path_below, some
from attnact.extract.datasets.listing import OwnVideos, read_list
from attnact.vocabulary import Split

FOLDS, SEED = 5, 0  # where neither is asked for

INFO = DatasetInfo(
    name="folder",
    title="your own videos",
    videos=None,
    classes=None,
    folds="the list's fold columns, else 1 to K (stratified, by group, seeded)",
    metric="accuracy",
    homepage="",
    archives=(),
    layout="<class>/**/<video>, or a CSV file with path,label[,group][,fold columns]",
)


def load(root: Path, folds: int = FOLDS, seed: int = SEED) -> Dataset:
    """Return the videos below a folder, or those that a CSV file lists, with their folds.

    Without fold columns the folds are ``1`` to ``folds``, see `cross_validation`. Raises
    DatasetError where videos or classes are missing, the list is wrong, or the folds cannot be;
    ValueError for fewer than two folds.
    """
    listing = read_list(root) if root.is_file() else scan(root)
    classes = in_order(listing.labels)
    if len(classes) < 2:
        raise DatasetError(f"{root}: all videos are of one class, {classes[0]}; add another class")
    videos = tuple(
        Video(path, (classes.index(label),), group)
        for path, label, group in zip(listing.paths, listing.labels, listing.groups, strict=True)
    )
    notes = list(listing.warnings)
    sides = listing.folds
    if sides and (folds, seed) != (FOLDS, SEED):
        notes.append(f"--folds and --seed are not used: {root} has the folds {some(list(sides))}")
    if not sides:
        sides = cross_validation(root, videos, folds, seed)
        notes += rare_classes(videos, classes, folds)
    for name, fold in sides.items():
        check_fold(root, name, videos, fold)
    return Dataset(INFO.name, listing.root, classes, False, videos, sides, tuple(notes))


def scan(root: Path) -> OwnVideos:
    """Return the videos below the sub-folders of root, each labelled with its sub-folder's name.

    Hidden files and folders are passed over; what else is no video of a class is counted in
    ``warnings``. Raises DatasetError where there are no videos.
    """
    wanted = "give a folder with a sub-folder of videos for each class, or a CSV list of videos"
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder or file; {wanted}")
    paths: list[str] = []
    labels: list[str] = []
    beside = (path for path in root.iterdir() if path.is_file() and path.name[0] != ".")
    others = [path_below(root, file) for file in beside]
    walked = [root.resolve(), *(it.resolve() for it in folders(root) if it.is_symlink())]
    for folder in folders(root):
        for file in files_below(folder, walked):
            path = path_below(root, file)
            if is_video(file) and file.is_file():
                paths.append(path)
                labels.append(folder.name)
            else:
                others.append(path)
    if not paths:
        raise DatasetError(f"{root}: no videos in its sub-folders; {wanted}")
    classes = set(labels)
    empty = [folder.name for folder in folders(root) if folder.name not in classes]
    notes = []
    if others:
        notes.append(f"{len(others)} files are no videos of a class: {some(sorted(others))}")
    if empty:
        notes.append(f"{len(empty)} folders have no videos: {some(empty)}")
    return OwnVideos(root, paths, labels, groups=paths, warnings=notes)


def in_order(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct labels, sorted; as numbers if all of them are integers."""
    names = sorted(set(labels))
    if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        names.sort(key=int)
    return tuple(names)


def cross_validation(
    root: Path, videos: Sequence[Video], folds: int, seed: int
) -> dict[str, list[Split]]:
    """Return the folds ``1`` to ``folds``: each video is in the test side of exactly one.

    Groups stay together, and classes are spread as evenly as that allows. Raises DatasetError where
    there are too few groups or too few videos of every class; ValueError for fewer than two folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if folds < 2:
        raise ValueError(f"folds must be 2 or more, not {folds}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, not {seed}")
    labels = [video.labels[0] for video in videos]
    groups = [video.group for video in videos]
    if len(set(groups)) < folds:
        what = f"{folds} folds need as many groups, and there are {len(set(groups))}"
        raise DatasetError(f"{root}: {what}; ask for fewer folds or add videos")
    if max(labels.count(label) for label in set(labels)) < folds:
        what = f"{folds} folds need a class with as many videos, and no class has them"
        raise DatasetError(f"{root}: {what}; ask for fewer folds or add videos")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    sides = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare_classes says it with the names
        for number, (_, test) in enumerate(splitter.split(labels, labels, groups), start=1):
            tested = set(test.tolist())
            sides[str(number)] = [
                Split.TEST if i in tested else Split.TRAIN for i in range(len(videos))
            ]
    return sides


def rare_classes(videos: Sequence[Video], classes: Sequence[str], folds: int) -> list[str]:
    """Return a line that names the classes with fewer groups than folds, if there are any."""
    groups: list[set[str]] = [set() for _ in classes]
    for video in videos:
        groups[video.labels[0]].add(video.group)
    rare = [name for name, of_class in zip(classes, groups, strict=True) if len(of_class) < folds]
    return [f"not in the test side of every fold, too few groups: {some(rare)}"] if rare else []


def check_fold(root: Path, name: str, videos: Sequence[Video], sides: Sequence[Split]) -> None:
    """Raise DatasetError for a fold with an empty side, or with a group on both sides."""
    if Split.TRAIN not in sides or Split.TEST not in sides:
        what = f"fold {name} has no videos in train or in test"
        raise DatasetError(f"{root}: {what}; change its column, or ask for fewer folds")
    torn = straddling_groups(videos, sides)
    if torn:
        what = f"fold {name} has groups both in train and in test: {some(torn)}"
        raise DatasetError(f"{root}: {what}; give each group one side")
