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


def finished(cache: Path, plan: Plan, listing: Listing) -> FeatureCache | None:
    """The cache, if its index is of the shards that are there; None if one is to be written.

    Raises:
        SchemaError: the index is of a newer attnact.
        CacheError: a shard is broken, or the index lists other videos, or these otherwise, and what
            was trained on the cache would lose it.
    """
    index = _read_index(cache, plan)
    if index is None:
        return None
    if what := unlike(index, listing):  # also where shards are to be made again
        raise CacheError(
            f"{cache}: made with {what}; delete this one file (not the shards) to have it written "
            "anew over the features that are there, without the runs on it, or choose another --out"
        )
    made = not plan.missing(cache) and lists_shards(index, len(plan.starts), listing)
    return index if made else None


def _read_index(path: Path, plan: Plan) -> FeatureCache | None:
    """The cache, if it lists what is planned; None if its index is still to be written.

    Its shards may have been made anew since, or be gone.
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


def finish(
    cache: Path,
    plan: Plan,
    made: FeatureCache | None,
    listing: Listing,
    provenance: dict[str, str],
) -> FeatureCache:
    """The cache over all its shards; `made`, if it is finished, stays as it is.

    Raises:
        CacheError: a shard is broken.
    """
    if made is None:
        return write_index(cache, len(plan.starts), listing, provenance)
    if made.root == listing.root:
        return made
    note(f"{cache}: its videos are in {listing.root} now")
    return move_root(made, listing.root)


def changed(made: FeatureCache) -> list[str]:
    """The videos whose files have another size than when their features were made."""
    known = [(path, row.file_bytes) for path, row in zip(made.paths, made.rows, strict=True)]
    return [path for path, size in known if size and (made.root / path).stat().st_size != size]


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


def listing_of(dataset: Dataset, plan: Plan) -> Listing:
    """The videos of a data set as an index lists them, each at its place in the plan."""
    places = {path: place for place, path in enumerate(plan.paths)}
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
        places=[places[video.path] for video in dataset.videos],
    )


def _weights_file(config: ExtractConfig) -> str:
    """Where the weights were read; empty for published and for random ones."""
    if config.weights is None or config.weights == RANDOM:
        return ""
    return str(Path(config.weights).resolve())
