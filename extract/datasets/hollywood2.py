"""Hollywood2, its action half: 823 training and 884 test clips, 12 actions, several may hold.

The clips of training and test come from different films. The scene clips (``sceneclip*``) and the
automatically labelled training clips (``actionclipautotrain*``) are not used.
"""

from pathlib import Path

from attnact.errors import DatasetError
from attnact.extract.datasets.base import Archive, Dataset, DatasetInfo, Video
from attnact.extract.datasets.disk import find_home, incomplete, path_below, some
from attnact.vocabulary import HOLLYWOOD2_CLASSES as CLASSES
from attnact.vocabulary import Split

# Where and what the archive is: from the README that its authors give with it.
INFO = DatasetInfo(
    name="hollywood2",
    title="Hollywood2",
    videos=1707,
    classes=12,
    folds="1 (official: 823 train, 884 test)",
    metric="mean average precision",
    homepage="https://www.di.ens.fr/~laptev/actions/hollywood2/",
    archives=(
        Archive(
            "Hollywood2-actions.tar.gz",
            "ftp://ftp.irisa.fr/local/vistas/actions/Hollywood2-actions.tar.gz",
            "md5:55948d0ef45a569a2134ea44e6f8976c",
        ),
    ),
    layout="AVIClips/<clip>.avi with ClipSets/<action>_<train or test>.txt",
)

OFFICIAL_COUNTS = {"train": 823, "test": 884}
SIDES = {"train": Split.TRAIN, "test": Split.TEST}


def load(root: Path) -> Dataset:
    """Return Hollywood2 as it lies in root, or in the one folder of root that its archive made.

    Every clip is a group of its own: which film a clip is from was never published. Listed clips
    that are missing are left out and named in ``warnings``. Raises DatasetError where the lists or
    all videos are missing, or the lists contradict each other.
    """
    home = find_home(INFO, root, ("AVIClips", "ClipSets"))
    videos: list[Video] = []
    sides: list[Split] = []
    missing: list[str] = []
    for side in SIDES:
        for clip, labels in read_clip_sets(home / "ClipSets", side, root).items():
            file = home / "AVIClips" / f"{clip}.avi"
            if file.is_file():
                videos.append(Video(path_below(home, file), labels, group=clip))
                sides.append(SIDES[side])
            else:
                missing.append(clip)
    if not videos:
        raise incomplete(INFO, root, "none of the listed clips in the folder AVIClips")
    if len({video.path for video in videos}) < len(videos):
        raise DatasetError(
            f"{home / 'ClipSets'}: clips are in train and test lists; unpack it anew"
        )
    warnings = differences(sides, missing)
    return Dataset(INFO.name, home, CLASSES, True, tuple(videos), {"1": sides}, warnings)


def read_clip_sets(folder: Path, side: str, root: Path) -> dict[str, tuple[int, ...]]:
    """Return the actions that hold in each clip of a side, from the twelve lists of that side."""
    lists = [folder / f"{action}_{side}.txt" for action in CLASSES]
    absent = [path.name for path in lists if not path.is_file()]
    if absent:
        raise incomplete(INFO, root, f"ClipSets lacks {some(absent)}")
    flags = [read_clip_set(path) for path in lists]
    for path, of_action in zip(lists, flags, strict=True):
        if of_action.keys() != flags[0].keys():
            raise DatasetError(f"{path} names other clips than {lists[0].name}; unpack it anew")
    return {
        clip: tuple(label for label, of_action in enumerate(flags) if of_action[clip])
        for clip in sorted(flags[0])
    }


def read_clip_set(path: Path) -> dict[str, bool]:
    """Return whether the action of one list holds, for each of its clips (scene clips left out)."""
    flags = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("sceneclip"):
            continue
        if len(words) != 2 or words[1] not in ("1", "-1"):
            raise DatasetError(f"{path}, line {number}: {line!r} is not a clip and 1 or -1")
        flags[words[0]] = words[1] == "1"
    return flags


def differences(sides: list[Split], missing: list[str]) -> tuple[str, ...]:
    """Return what differs from the official data set, a line each: missing clips, then counts."""
    lines = []
    if missing:
        lines.append(f"{len(missing)} listed clips are missing in AVIClips: {some(missing)}")
    for side, official in OFFICIAL_COUNTS.items():
        count = sides.count(SIDES[side])
        if count != official:
            lines.append(f"{count} {side} clips, officially {official}")
    return tuple(lines)
