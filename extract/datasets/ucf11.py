"""UCF-11 (YouTube Action): 1600 clips, 11 classes, 25 groups of related clips in each class.

There is no official split. The clips of a group share the scene and the person, so every fold here
is by group: ``1`` trains on groups 1-15 and tests on 16-25 of every class; ``leave-01`` to
``leave-25`` test on one group of every class and train on the other 24.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from attnact.extract.datasets.base import Archive, Dataset, DatasetInfo, Video
from attnact.extract.datasets.disk import (
    find_home,
    folders,
    incomplete,
    path_below,
    some,
    videos_in,
)
from attnact.vocabulary import Split

INFO = DatasetInfo(
    name="ucf11",
    title="UCF-11",
    videos=1600,
    classes=11,
    folds="1 (groups 1-15 train, 16-25 test); leave-01 to leave-25 (one group of each class tests)",
    metric="accuracy",
    homepage="https://www.crcv.ucf.edu/data/UCF_YouTube_Action.php",
    archives=(
        Archive("UCF11_updated_mpg.rar", "https://www.crcv.ucf.edu/data/UCF11_updated_mpg.rar"),
    ),
    layout="<class>/<group folder>/<clip>.mpg",
)

# How the archive's clips are named and how many each of the 25 groups has. They are numbered from
# 01 without a gap, so this is the whole official list: <name>_<group>/<name>_<group>_<clip>.mpg
OFFICIAL = {
    "basketball": ("v_shooting", "7 6 6 4 4 4 4 4 5 5 5 5 4 5 7 7 4 5 8 7 6 8 6 6 9"),
    "biking": ("v_biking", "4 7 4 5 9 5 6 6 4 6 6 4 6 4 5 5 6 6 4 10 12 5 4 8 4"),
    "diving": ("v_diving", "7 7 8 7 6 7 4 6 7 7 6 7 7 4 9 8 4 4 4 7 7 6 6 7 4"),
    "golf_swing": ("v_golf", "6 4 7 6 8 4 5 6 4 4 7 4 4 4 4 4 8 6 6 7 6 6 8 7 7"),
    "horse_riding": ("v_riding", "9 9 8 8 8 10 8 6 6 8 7 7 4 8 7 6 6 6 9 8 6 7 6 8 23"),
    "soccer_juggling": ("v_juggle", "5 6 4 6 6 5 8 4 7 4 6 6 5 10 4 8 7 8 8 6 5 8 6 8 6"),
    "swing": ("v_swing", "5 5 4 8 8 9 8 5 6 4 6 4 4 5 8 5 4 4 4 6 6 5 5 5 4"),
    "tennis_swing": ("v_tennis", "7 7 7 7 7 7 7 6 7 7 7 7 7 7 8 7 7 6 6 6 6 6 6 6 6"),
    "trampoline_jumping": ("v_jumping", "4 6 4 5 4 4 5 4 6 6 6 5 4 4 5 6 4 4 6 5 4 6 4 4 4"),
    "volleyball_spiking": ("v_spiking", "4 4 4 7 5 4 7 6 6 4 6 4 7 4 4 4 4 4 4 4 4 4 4 4 4"),
    "walking": ("v_walk_dog", "4 6 5 5 5 5 6 5 6 5 5 5 5 4 4 5 5 4 5 7 4 4 4 6 4"),
}
CLASSES = tuple(OFFICIAL)
GROUPS = range(1, 26)
LAST_TRAIN_GROUP = 15


def load(root: Path) -> Dataset:
    """Return UCF-11 as it lies in root, or in the one folder of root that its archive made.

    ``Video.group`` is ``<class>/<group folder>``: group 7 of one class has nothing to do with group
    7 of another, and a validation split drawn from these finer groups can still keep every class.
    What differs from the official 1600 clips is in ``warnings``. Raises DatasetError where a class
    is missing or empty.
    """
    home = find_home(INFO, root, CLASSES)
    videos: list[Video] = []
    numbers: list[int] = []
    for label, name in enumerate(CLASSES):
        before = len(videos)
        for folder in folders(home / name):
            number = group_number(folder.name)
            if number is None:  # "Annotation", and whatever else is no group
                continue
            clips = videos_in(folder)
            group = f"{name}/{folder.name}"
            videos += (Video(path_below(home, clip), (label,), group) for clip in clips)
            numbers += [number] * len(clips)
        if len(videos) == before:
            raise incomplete(INFO, root, f"no videos in the folder {name}")
    folds = folds_by_group(numbers)
    warnings = differences([video.path for video in videos])
    return Dataset(INFO.name, home, CLASSES, False, tuple(videos), folds, warnings)


def group_number(folder: str) -> int | None:
    """Return the number at the end of a group folder's name, or None if it is no group's."""
    match = re.search(r"_(\d\d)$", folder)
    number = int(match[1]) if match else 0
    return number if number in GROUPS else None


def folds_by_group(numbers: Sequence[int]) -> dict[str, list[Split]]:
    """Return all 26 folds of clips whose groups have these numbers."""
    folds = {"1": [Split.TRAIN if n <= LAST_TRAIN_GROUP else Split.TEST for n in numbers]}
    for left_out in GROUPS:
        folds[f"leave-{left_out:02d}"] = [
            Split.TEST if n == left_out else Split.TRAIN for n in numbers
        ]
    return folds


def official_clips() -> list[str]:
    """Return the 1600 clips of the archive: their paths without the suffix."""
    return [
        f"{name}/{prefix}_{group:02d}/{prefix}_{group:02d}_{clip:02d}"
        for name, (prefix, sizes) in OFFICIAL.items()
        for group, size in zip(GROUPS, sizes.split(), strict=True)
        for clip in range(1, int(size) + 1)
    ]


def differences(paths: Sequence[str]) -> tuple[str, ...]:
    """Return what differs from the official list, a line each: missing, extra, doubled clips."""
    official = set(official_clips())
    found = Counter(path.rpartition(".")[0] for path in paths)
    missing = sorted(official - found.keys())
    extra = sorted(found.keys() - official)
    twice = sorted(clip for clip, files in found.items() if files > 1)
    lines = []
    if missing:
        lines.append(f"{len(missing)} of the 1600 official clips are missing: {some(missing)}")
    if extra:
        lines.append(f"{len(extra)} clips are not among the official 1600: {some(extra)}")
    if twice:
        lines.append(f"{len(twice)} clips lie there more than once: {some(twice)}")
    return tuple(lines)
