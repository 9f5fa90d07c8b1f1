"""Folders of runs: what lies in them, and what to call each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tree:
    """What lies in a folder, at any depth: runs, and the folders that are none."""

    runs: list[Path]
    others: list[Path]


def tree(folder: Path) -> Tree:
    """The folder and whatever is in it. A run is not searched; no folder is gone through twice."""
    found, seen = Tree([], []), set()
    for name, inside, files in os.walk(folder, followlinks=True):
        inside.sort()
        if (real := os.path.realpath(name)) in seen:
            inside.clear()
        elif "config.json" in files:
            found.runs.append(Path(name))
            inside.clear()
        else:
            found.others.append(Path(name))
        seen.add(real)
    return found


def names_of(folders: Sequence[Path]) -> list[str]:
    """What to call each folder: by its own name, or the whole path where two have one name."""
    names = [folder.resolve().name for folder in folders]
    return [
        name if names.count(name) == 1 else str(folder)
        for name, folder in zip(names, folders, strict=True)
    ]
