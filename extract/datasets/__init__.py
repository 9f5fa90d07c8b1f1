"""The data sets: what is known of each, and how each is read from disk."""

from collections.abc import Callable
from pathlib import Path

from attnact.extract.datasets import folder, hmdb51, hollywood2, ucf11
from attnact.extract.datasets.base import Dataset, DatasetInfo

DATASETS: dict[str, DatasetInfo] = {
    info.name: info for info in (ucf11.INFO, hmdb51.INFO, hollywood2.INFO, folder.INFO)
}
_OFFICIAL: dict[str, Callable[[Path], Dataset]] = {
    "ucf11": ucf11.load,
    "hmdb51": hmdb51.load,
    "hollywood2": hollywood2.load,
}


def load_dataset(name: str, root: Path, folds: int = 5, seed: int = 0) -> Dataset:
    """Return a data set as it lies in root.

    ``folds`` and ``seed`` are for ``folder`` without fold columns; the others have their own folds.
    Raises ValueError for an unknown name, DatasetError for files that are missing or wrong.
    """
    if name == folder.INFO.name:
        return folder.load(root, folds, seed)
    if name not in _OFFICIAL:
        raise ValueError(f"no data set is called {name!r}; there are {', '.join(DATASETS)}")
    return _OFFICIAL[name](root)
