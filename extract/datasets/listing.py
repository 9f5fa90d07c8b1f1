"""A list of videos in a CSV file: ``path,label[,group]`` and a column for each fold."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnact.errors import DatasetError
from attnact.extract.datasets.disk import path_below, some
from attnact.vocabulary import Split

OWN_COLUMNS = ("path", "label", "group")  # every other column is a fold
SIDES = {"train": Split.TRAIN, "test": Split.TEST, "unused": Split.UNUSED, "": Split.UNUSED}


@dataclass(frozen=True)
class OwnVideos:
    """The user's videos before their classes have numbers: one entry of each list a video.

    paths: relative to root. groups: a video that was given none is its own. folds: by name; empty
    where the user has none.
    """

    root: Path
    paths: list[str]
    labels: list[str]
    groups: list[str]
    folds: dict[str, list[Split]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_list(file: Path) -> OwnVideos:
    """Return the videos that a CSV file lists, in its order.

    The paths in it are absolute or start from the file's own folder. That folder is the root where
    it holds all videos, else their common parent is. Raises DatasetError, with the line, for
    whatever is missing, doubled, or not what its column asks for.
    """
    header, rows = _read_rows(file)
    folder = Path(os.path.abspath(file)).parent
    lines: dict[Path, int] = {}
    labels, groups = [], []
    folds: dict[str, list[Split]] = {name: [] for name in header if name not in OWN_COLUMNS}
    for line, row in rows:
        where = f"{file}, line {line}"
        if len(row) != len(header):
            raise DatasetError(f"{where}: {len(row)} cells, the header has {len(header)}; mend it")
        cells = dict(zip(header, row, strict=True))
        if not cells["path"] or not cells["label"]:
            raise DatasetError(f"{where}: no path or no label; fill it in or remove the line")
        path = Path(os.path.abspath(folder / cells["path"]))
        if path in lines:
            raise DatasetError(
                f"{where}: {cells['path']} is on line {lines[path]} already; remove one"
            )
        lines[path] = line
        labels.append(cells["label"])
        groups.append(cells.get("group", ""))
        for name, sides in folds.items():
            sides.append(_side(cells[name], name, where))
    _check_on_disk(file, list(lines))
    root = _root(folder, list(lines))
    paths = [path_below(root, path) for path in lines]
    groups = [group or path for group, path in zip(groups, paths, strict=True)]
    return OwnVideos(root, paths, labels, groups, folds)


def _read_rows(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the rows that are not blank, each with its line in the file."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, skipinitialspace=True, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeDecodeError:
        raise DatasetError(
            f"{file} is not UTF-8 text; give a folder, or a list saved as CSV in UTF-8"
        ) from None
    except csv.Error as error:
        raise DatasetError(f"{file}, line {reader.line_num}: not CSV ({error})") from None
    rows = [(line, row) for line, row in rows if any(row)]
    header = rows[0][1] if rows else []
    header = [name.lower() if name.lower() in OWN_COLUMNS else name for name in header]
    if not {"path", "label"} <= set(header):
        found = ",".join(header)
        told = f"{file}: the first line must be path,label[,group][,folds], with commas"
        raise DatasetError(f"{told}: {found!r}")
    if "" in header or len(set(header)) < len(header):
        raise DatasetError(f"{file}: the first line has a column without a name, or one twice")
    unfit = [name for name in header if "/" in name or name == "."]
    if unfit:  # a fold is a data set of the cache, and part of the name of a run's folder
        raise DatasetError(f"{file}: the column {unfit[0]!r} cannot name a fold; rename it")
    if len(rows) == 1:
        raise DatasetError(f"{file} lists no videos; add a line for each")
    return header, rows[1:]


def _side(cell: str, column: str, where: str) -> Split:
    """Return the side that a cell of a fold column names."""
    try:
        return SIDES[cell.lower()]
    except KeyError:
        raise DatasetError(
            f"{where}: {cell!r} in the column {column!r}; every column but path, label and group "
            "is a fold and says train, test or unused: correct the cell or remove the column"
        ) from None


def _check_on_disk(file: Path, paths: Sequence[Path]) -> None:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        what = f"{len(missing)} of {len(paths)} listed videos are not on disk: {some(missing)}"
        raise DatasetError(f"{file}: {what}; correct the paths, which start from its own folder")


def _root(folder: Path, paths: Sequence[Path]) -> Path:
    """Return the list's own folder if all videos are in it, else their common parent."""
    if all(path.is_relative_to(folder) for path in paths):
        return folder
    return Path(os.path.commonpath([path.parent for path in paths]))
