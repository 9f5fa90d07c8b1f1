"""The index that ends an extraction: when it is to be written, and what it says."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from attnact.cache.feature_index import (
    Listing,
    lists_shards,
    move_root,
    other_videos,
    read_shards,
    unlike,
    write_index,
)
from attnact.cache.features import FeatureCache
from attnact.cache.provenance import versions
from attnact.cache.shards import shard_path
from attnact.errors import CacheError, SchemaError
from attnact.extract.config import ExtractConfig
from attnact.extract.datasets.base import Dataset
from attnact.extract.networks.backbone import RANDOM, Backbone
from attnact.extract.plan import Plan
from attnact.machine.files import file_size
from attnact.machine.progress import note


def standing(cache: Path, plan: Plan, listing: Listing) -> FeatureCache | None:
    """The cache, if there is an index of what is asked for; None if one is to be written.

    Its shards may have been made anew since, or be gone.

    Raises:
        SchemaError: the index is of a newer attnact.
        CacheError: it lists other videos, or these otherwise, and what was trained on the cache
            would lose it.
    """
    index = _read_index(cache, plan)
    if index is None:
        return None
    others = other_videos(index, listing)
    if others and index.provenance.get("date") != plan.date:
        return None  # of a plan that is gone with its shards
    if what := others or unlike(index, listing):
        raise CacheError(
            f"{cache}: made with {what}; delete this one file (not the shards) to have it written "
            "anew over the features that are there, without the runs on it, or choose another --out"
        )
    return index


def _read_index(path: Path, plan: Plan) -> FeatureCache | None:
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


def finish(cache: Path, plan: Plan, listing: Listing, provenance: dict[str, str]) -> FeatureCache:
    """The cache over its shards, which are all there; an index of just these stays as it is.

    Raises:
        CacheError: a shard is broken, or as `standing`.
    """
    shards = plan.shards_of(listing.paths)
    made = standing(cache, plan, listing)
    if made is None:
        return write_index(cache, shards, listing, provenance)
    if not lists_shards(made, shards, listing):  # if nothing but files' sizes, it has its digest
        return write_index(cache, shards, listing, made.provenance)
    if made.root == listing.root:
        return made
    note(f"{cache}: its videos are in {listing.root} now")
    return move_root(made, listing.root)


def mended(cache: Path, plan: Plan, dataset: Dataset) -> list[str]:
    """The videos that failed in a shard, and whose files are others now.

    Raises:
        CacheError: a shard is broken.
    """
    there = [it for it in plan.shards_of(dataset.paths) if shard_path(cache, it).exists()]
    rows, _, _ = read_shards(cache, there)
    failed = {row.video: row.file_bytes for row in rows if row.failure}
    then = {path: failed.get(plan.places[path]) for path in dataset.paths}
    return [
        path
        for path, size in then.items()
        if size is not None and file_size(dataset.root / path) not in (None, size)
    ]


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
    labels = np.zeros((len(dataset.videos), len(dataset.classes)), np.int64)
    for row, video in zip(labels, dataset.videos, strict=True):
        row[list(video.labels)] = 1
    return Listing(
        name=dataset.name,
        root=dataset.root.resolve(),
        classes=dataset.classes,
        paths=dataset.paths,
        labels=labels if dataset.multi_label else labels.argmax(1),
        groups=[video.group for video in dataset.videos],
        folds={name: np.array(sides, np.int8) for name, sides in dataset.folds.items()},
        places=[plan.places[path] for path in dataset.paths],
    )


def _weights_file(config: ExtractConfig) -> str:
    """Where the weights were read; empty for published and for random ones."""
    if config.weights is None or config.weights == RANDOM:
        return ""
    return str(Path(config.weights).resolve())
