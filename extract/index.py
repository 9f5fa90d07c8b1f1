"""The index that ends an extraction: when it is to be written, and what it says."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from attnact.cache.feature_index import Listing, lists_shards, move_root, unlike, write_index
from attnact.cache.features import FeatureCache
from attnact.cache.provenance import versions
from attnact.errors import CacheError, SchemaError
from attnact.extract.config import ExtractConfig
from attnact.extract.datasets.base import Dataset
from attnact.extract.networks.backbone import RANDOM, Backbone
from attnact.extract.plan import Plan
from attnact.machine.progress import note


def read_index(path: Path, plan: Plan) -> FeatureCache | None:
    """The cache, if it lists what is planned; None if its index is still to be written.

    Its shards may have been made anew since, or be gone.

    Raises:
        SchemaError: it is of a newer attnact.
    """
    try:
        made = FeatureCache(path)
    except SchemaError:
        raise
    except CacheError:
        return None
    settings = asdict(plan.settings).items()  # of which older caches have not all
    same = all(made.provenance.get(name, value) == value for name, value in settings)
    listed = [plan.paths[row.video] for row in made.rows if row.video < len(plan.paths)]
    return made if same and listed == made.paths else None


def finished(index: FeatureCache | None, cache: Path, plan: Plan) -> FeatureCache | None:
    """The cache of this index, if it is of the shards that are there; None if it is to be written.

    Raises:
        CacheError: a shard is broken.
    """
    if index is None or plan.missing(cache):
        return None
    return index if lists_shards(index, len(plan.starts), plan.paths) else None


def check_listing(made: FeatureCache, dataset: Dataset) -> None:
    """Holds a data set against a cache's index, which lists the classes, groups and folds.

    Raises:
        CacheError: they differ, and what was trained on the cache would lose it.
    """
    if what := unlike(made, _listing(dataset)):
        raise CacheError(
            f"{made.path}: made with {what}; delete this one file (not the shards) to have it "
            "written anew, without the runs on it, or choose another --out"
        )


def finish(
    cache: Path,
    plan: Plan,
    made: FeatureCache | None,
    dataset: Dataset,
    provenance: dict[str, str],
) -> FeatureCache:
    """The cache over all its shards; `made`, if it is finished, stays as it is.

    Raises:
        CacheError: a shard is broken, or what is made lists the videos otherwise.
    """
    listing = _listing(dataset)
    if made is None:
        return write_index(cache, len(plan.starts), listing, provenance)
    check_listing(made, dataset)
    if made.root == listing.root:
        return made
    note(f"{cache}: its videos are in {listing.root} now")
    return move_root(made, listing.root)


def provenance_of(plan: Plan, backbone: Backbone, config: ExtractConfig) -> dict[str, str]:
    """How the features were made, as text."""
    return {
        **asdict(plan.settings),
        "weights_file": _weights_file(config),
        "weights_are_random": str(backbone.is_random).lower(),
        "device": str(backbone.device),
        "date": plan.date,
        "command": plan.command,
        **versions("torch", "torchvision", "av", "h5py", "numpy"),
    }


def _listing(dataset: Dataset) -> Listing:
    labels = np.zeros((len(dataset.videos), len(dataset.classes)), np.int64)
    for row, video in zip(labels, dataset.videos, strict=True):
        row[list(video.labels)] = 1
    return Listing(
        name=dataset.name,
        root=dataset.root.resolve(),
        classes=dataset.classes,
        paths=[video.path for video in dataset.videos],
        labels=labels if dataset.multi_label else labels.argmax(1),
        groups=[video.group for video in dataset.videos],
        folds={name: np.array(sides, np.int8) for name, sides in dataset.folds.items()},
    )


def _weights_file(config: ExtractConfig) -> str:
    """Where the weights were read; empty for published and for random ones."""
    if config.weights is None or config.weights == RANDOM:
        return ""
    return str(Path(config.weights).resolve())
