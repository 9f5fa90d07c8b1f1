"""What lies on disk: the folders and videos of a data set, and what to say when they do not."""

import os
from collections.abc import Sequence
from pathlib import Path

from attnact.errors import DatasetError
from attnact.extract.datasets.base import DatasetInfo

VIDEOS = ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv"
VIDEO_SUFFIXES = frozenset(VIDEOS.split())
ARCHIVE_SUFFIXES = frozenset({".rar", ".zip", ".gz", ".tgz", ".tar"})


def folders(folder: Path) -> list[Path]:
    """Return the sub-folders of a folder, by name, without the hidden ones."""
    inside = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(inside, key=lambda path: path.name)


def is_video(path: Path) -> bool:
    """Return whether a file's name is that of a video, and not hidden."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def files_below(folder: Path, walked: list[Path]) -> list[Path]:
    """Return all files below a folder, in a fixed order, without hidden ones.

    Links to folders are followed, but for those to what is walked anyway. walked: resolved paths,
    to which those of the links are added.
    """
    found: list[Path] = []
    for place, inside, names in os.walk(folder, followlinks=True):
        seen = [Path(place, name) for name in sorted(inside) if name[0] != "."]
        inside[:] = [it.name for it in seen if _goes_on(it, walked)]
        found += (Path(place, name) for name in sorted(names) if name[0] != ".")
    return found


def _goes_on(folder: Path, walked: list[Path]) -> bool:
    if not folder.is_symlink():
        return True
    there = folder.resolve()
    if any(there.is_relative_to(it) or it.is_relative_to(there) for it in walked):
        return False
    walked.append(there)
    return True


def videos_in(folder: Path) -> list[Path]:
    """Return the video files that lie directly in a folder, by name."""
    inside = (path for path in folder.iterdir() if is_video(path) and path.is_file())
    return sorted(inside, key=lambda path: path.name)


def videos_meant(path: Path) -> list[Path]:
    """Return the videos that a path means.

    All below a folder; those of a list, `.txt`, a path a line, relative to the list's own folder;
    or the one file. Raises DatasetError where a folder or a list holds none or cannot be read.
    """
    try:
        if path.is_dir():
            below = files_below(path, [path.resolve()])
            found = sorted(file for file in below if is_video(file) and file.is_file())
        elif path.suffix.lower() == ".txt":
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            found = [path.parent / line for line in lines if line]
        elif path.suffix.lower() == ".csv":
            raise DatasetError(f"{path}: a list of videos to look at is a .txt, a path a line")
        else:
            return [path]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as a list of videos ({error})") from error
    if not found:
        raise DatasetError(f"{path}: holds no videos; their names end in {VIDEOS}")
    return found


def path_below(root: Path, file: Path) -> str:
    """Return a file's path relative to root, with forward slashes, as the cache stores it.

    Raises DatasetError for a name that is not UTF-8: no cache could hold it.
    """
    path = file.relative_to(root).as_posix()
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DatasetError(f"{path!a} in {root}: the name is not UTF-8; rename the file") from None
    return path


def some(names: Sequence[str]) -> str:
    """Return up to ten names and how many more there are, for a message of one line."""
    rest = len(names) - 10
    return ", ".join(names[:10]) + (f" and {rest} more" if rest > 0 else "")


def incomplete(info: DatasetInfo, root: Path, what: str) -> DatasetError:
    """Return the refusal of a data set that is missing or half unpacked, and how to get it."""
    places = (root, *folders(root)) if root.is_dir() else ()
    packed = [
        path.name for place in places for path in place.iterdir() if path.suffix in ARCHIVE_SUFFIXES
    ]
    still = f" (still packed: {some(sorted(packed))})" if packed else ""
    ways = [f"with 'attnact download {info.name}'"] if info.archives else []
    ways += [f"from {info.homepage}"] if info.homepage else []
    get = f"get it {' or '.join(ways)}, and " if ways else ""
    return DatasetError(
        f"{info.title} in {root}: {what}; {get}unpack every archive{still} so that it lies as "
        f"{info.layout}"
    )


def find_home(info: DatasetInfo, root: Path, wanted: Sequence[str]) -> Path:
    """Return the folder that holds the folders wanted: root, or one directly in root.

    So root may be an archive's own top folder or the folder it was unpacked in. Raises DatasetError
    where there is no root, or where some of the folders are missing.
    """
    if not root.is_dir():
        raise incomplete(info, root, "there is no such folder")
    home = max(
        (root, *folders(root)),
        key=lambda place: sum((place / name).is_dir() for name in wanted),
    )
    missing = [name for name in wanted if not (home / name).is_dir()]
    if missing:
        raise incomplete(info, root, f"no folder {some(missing)}")
    return home
