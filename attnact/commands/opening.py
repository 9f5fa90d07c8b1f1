"""What several commands begin with: the cache that is meant, and its features in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attnact.commands.options import Engine
from attnact.machine.progress import note, warn


def find_cache(path: Path | None) -> Any:
    """The cache that is meant: a file, a name in features/, or the only one there."""
    from attnact.cache.features import FeatureCache
    from attnact.errors import CacheError

    folder = Path("features")
    if path is not None:
        named = folder / f"{path}.h5"
        if (path / "config.json").is_file():
            raise CacheError(f"{path}: is a run; to go on with it: attnact train --resume {path}")
        if not path.is_file() and not named.is_file():
            near = get_close_matches(path.name, [file.stem for file in folder.glob("*.h5")], 1)
            if near:
                raise CacheError(f"{path}: no such file or cache; did you mean {near[0]}?")
        return FeatureCache(named if named.is_file() and not path.is_file() else path)
    found = sorted(folder.glob("*.h5"))
    if not found:
        raise CacheError(
            "no cache in features/; make one with `attnact features`, or name its file"
        )
    if len(found) > 1:
        names = ", ".join(file.stem for file in found)
        raise CacheError(f"several caches in features/; name one of {names}")
    return FeatureCache(found[0])


def run_folder(cache: Any, name: str) -> Path:
    """Where a run of this name lies, or a folder of runs: in runs/CACHE."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise ValueError(f"--name {name!r} is no folder in runs/{cache.path.stem}")
    return Path("runs", cache.path.stem, name)


def open_features(cache: Any, folds: list[str], place: str, device: str | None) -> Any:
    """The features of the videos of some folds, and a line that says where they are."""
    from attnact.machine import ranks
    from attnact.machine.devices import best_device
    from attnact.machine.resources import keep_freed_memory
    from attnact.train.feed.store import describe, open_store, untaught, videos_in

    keep_freed_memory()
    where = best_device(device)
    videos = videos_in(cache, folds)
    store = open_store(cache, videos, place, where)  # type: ignore[arg-type]  # a checked choice
    by = f", {ranks.count()} processes" if ranks.count() > 1 else ""
    note(f"{cache.path}: {describe(cache, videos, store)}; the model on {where}{by}")
    for fold in folds:
        if ranks.rank() == 0 and (classes := ", ".join(untaught(cache, fold))):
            warn(f"no training video of fold {fold} shows {classes}, which its test videos do")
    return store


@contextmanager
def open_engine(engine: Engine, device: str | None) -> Iterator[Any]:
    """The cluster that does the work; None for this process."""
    if engine.name == "local":
        if any(option is not None for option in engine[1:]):
            raise ValueError("--address, --task-cpus and --task-gpus are for --engine ray")
        yield None
        return
    if device not in (None, "cpu"):
        raise ValueError(
            "Ray chooses the devices; --task-gpus, or --device cpu, in place of others"
        )
    from attnact.machine.cluster import Cluster

    cpus = 1 if engine.task_cpus is None else engine.task_cpus
    gpus = 0 if device == "cpu" else engine.task_gpus
    with Cluster(engine.address, cpus, gpus) as cluster:
        note(cluster.describe())
        yield cluster
