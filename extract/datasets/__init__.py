"""The data sets: what is known of each, and how each is read from disk."""

from pathlib import Path

from attnact.extract.datasets import folder, hmdb51, hollywood2, ucf11
from attnact.extract.datasets.base import Dataset, DatasetInfo

_OFFICIAL = {module.INFO.name: module for module in (ucf11, hmdb51, hollywood2)}
DATASETS: dict[str, DatasetInfo] = {
    module.INFO.name: module.INFO for module in (*_OFFICIAL.values(), folder)
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
    official: Dataset = _OFFICIAL[name].load(root)
    return official
