"""HMDB-51: 6766 clips, 51 classes, three official folds of 70 train and 30 test clips a class.

The official lists tag a clip 1 (train), 2 (test) or 0 (unused), and keep the clips of one source
video, within a class, on one side.
"""

from collections import Counter
from pathlib import Path

from attnact.errors import DatasetError
from attnact.extract.datasets.base import Archive, Dataset, DatasetInfo, Video
from attnact.extract.datasets.disk import find_home, incomplete, path_below, some, videos_in
from attnact.vocabulary import Split

# The lab's old server (serre-lab.clps.brown.edu) is gone; its new page links to these two files.
# The checksums are the ones that PyTorch's torchvision had for the old server's archives.
GOOGLE_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
INFO = DatasetInfo(
    name="hmdb51",
    title="HMDB-51",
    videos=6766,
    classes=51,
    folds="1, 2, 3 (official: 3570 train, 1530 test, 1666 unused)",
    metric="accuracy",
    homepage="https://serre.lab.brown.edu/hmdb51.html",
    archives=(
        Archive(
            "hmdb51_org.rar",
            f"{GOOGLE_DRIVE}17anw5Oxp7lmp9cMwXPOyOpL5olDLmPpj",
            "sha256:9e714a0d8b76104d76e932764a7ca636f929fff66279cda3f2e326fa912a328e",
        ),
        Archive(
            "test_train_splits.rar",
            f"{GOOGLE_DRIVE}1NQxJWJSYWefyNS-LFYCenFih4gRDUPCX",
            "sha256:229c94f845720d01eb3946d39f39292ea962d50a18136484aa47c1eba251d2b7",
        ),
    ),
    layout="<class>/<clip>.avi with testTrainMulti_7030_splits/<class>_test_split<1-3>.txt",
)

NAMES = """
    brush_hair cartwheel catch chew clap climb climb_stairs dive draw_sword dribble drink eat
    fall_floor fencing flic_flac golf handstand hit hug jump kick kick_ball kiss laugh pick pour
    pullup punch push pushup ride_bike ride_horse run shake_hands shoot_ball shoot_bow shoot_gun
    sit situp smile smoke somersault stand swing_baseball sword sword_exercise talk throw turn
    walk wave
"""
CLASSES = tuple(NAMES.split())
FOLDS = ("1", "2", "3")
OFFICIAL_COUNTS = {Split.TRAIN: 3570, Split.TEST: 1530, Split.UNUSED: 1666}
LIST_FOLDERS = (
    "testTrainMulti_7030_splits",
    "splits",
    "test_train_splits",
    "test_train_splits/testTrainMulti_7030_splits",
    ".",
)


def load(root: Path) -> Dataset:
    """Return HMDB-51 as it lies in root: the clips that the official lists name, with their folds.

    ``Video.group`` is ``<class>/<source video>``: that is what the official lists keep on one side.
    (They do divide a film that gave clips to several classes.) Clips that are missing, or in no
    list, are left out and named in ``warnings``. Raises DatasetError where classes or lists are
    missing, or a list cannot be read.
    """
    home = find_home(INFO, root, CLASSES)
    lists = find_lists(root, home)
    videos: list[Video] = []
    folds: dict[str, list[Split]] = {fold: [] for fold in FOLDS}
    missing: list[str] = []
    extra: list[str] = []
    for label, name in enumerate(CLASSES):
        tags = {fold: read_list(lists / f"{name}_test_split{fold}.txt") for fold in FOLDS}
        listed = sorted(set().union(*tags.values()))
        on_disk = {clip.name: clip for clip in videos_in(home / name)}
        if not on_disk:
            raise incomplete(INFO, root, f"no videos in the folder {name}")
        missing += (f"{name}/{clip}" for clip in listed if clip not in on_disk)
        extra += (f"{name}/{clip}" for clip in on_disk if clip not in listed)
        for clip in listed:
            if clip in on_disk:
                group = f"{name}/{source_video(clip, name)}"
                videos.append(Video(path_below(home, on_disk[clip]), (label,), group))
                for fold in FOLDS:
                    folds[fold].append(tags[fold].get(clip, Split.UNUSED))
    warnings = differences(folds, missing, extra)
    return Dataset(INFO.name, home, CLASSES, False, tuple(videos), folds, warnings)


def find_lists(root: Path, home: Path) -> Path:
    """Return the folder that holds the 153 official lists; DatasetError if some are missing."""

    def missing(folder: Path) -> list[str]:
        names = [f"{name}_test_split{fold}.txt" for name in CLASSES for fold in FOLDS]
        return [name for name in names if not (folder / name).is_file()]

    folders = [place / inside for place in (root, home) for inside in LIST_FOLDERS]
    best = min(folders, key=lambda folder: len(missing(folder)))
    if lost := missing(best):
        raise incomplete(INFO, root, f"{len(lost)} of the 153 official lists missing: {some(lost)}")
    return best


def read_list(path: Path) -> dict[str, Split]:
    """Return the side of each clip that an official list names."""
    sides = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        clip, *tag = line.rsplit(maxsplit=1)
        if tag not in (["0"], ["1"], ["2"]):
            raise DatasetError(
                f"{path}, line {number}: {line!r} is not a clip and 0, 1 or 2; "
                f"unpack the official lists from {INFO.homepage} again"
            )
        sides[clip] = Split(int(tag[0]))
    return sides


def source_video(clip: str, name: str) -> str:
    """Return the source video of a clip: its file name up to the last ``_<class>_``.

    What follows is camera, viewpoint and quality tags and a number, as in
    ``AmericanGangster_eat_u_nm_np1_fr_bad_65.avi``. A name of another form is its own source.
    """
    stem = clip.rpartition(".")[0]
    return stem.rpartition(f"_{name}_")[0] or stem


def differences(
    folds: dict[str, list[Split]], missing: list[str], extra: list[str]
) -> tuple[str, ...]:
    """Return what differs from the official data set, a line each: clips, then counts of a fold."""
    lines = []
    if missing:
        lines.append(f"{len(missing)} listed clips are missing: {some(missing)}")
    if extra:
        lines.append(f"{len(extra)} clips are in no list and left out: {some(extra)}")
    for fold, sides in folds.items():
        counts = Counter(sides)
        if counts != OFFICIAL_COUNTS:
            lines.append(
                f"fold {fold} has {counts[Split.TRAIN]} train, {counts[Split.TEST]} test and "
                f"{counts[Split.UNUSED]} unused clips, officially 3570, 1530 and 1666"
            )
    return tuple(lines)
