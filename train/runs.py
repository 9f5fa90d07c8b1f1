"""The folder of a run: what is in it, how it is begun, and how it is found again.

config.json        every choice, resolved; enough to run it again
metrics.jsonl      a line an epoch
last.ckpt          all that --resume needs
model.safetensors  the trained model
predictions.csv    a row a test video: its scores
attention.csv      a row a test video: how widely the model looked
summary.json       the result; a run that has it is finished
"""

import glob
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from os.path import isfile  # Path's may not be asked of a place that is closed to us
from pathlib import Path
from typing import Any

from attnact import __version__
from attnact.cache.features import FeatureCache
from attnact.errors import CacheError, RunBusyError, RunError
from attnact.machine.files import lock_beside, unlock, write_new, write_text
from attnact.machine.sealed import check_seal, parse, seal
from attnact.train.config import TrainConfig


@dataclass(frozen=True)
class Run:
    """A run that was begun, and maybe finished."""

    folder: Path
    config: TrainConfig
    cache: Path
    cache_digest: str

    @property
    def metrics(self) -> Path:
        """A JSON object a line, a line an epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def state(self) -> Path:
        """The training state after the last whole epoch."""
        return self.folder / "last.ckpt"

    @property
    def model(self) -> Path:
        """The trained model."""
        return self.folder / "model.safetensors"

    @property
    def predictions(self) -> Path:
        """The scores of the test videos."""
        return self.folder / "predictions.csv"

    @property
    def attention(self) -> Path:
        """How widely the model looked in the test videos."""
        return self.folder / "attention.csv"

    @property
    def finished(self) -> bool:
        """Whether the run has its summary."""
        return (self.folder / "summary.json").is_file()

    def open_cache(self) -> FeatureCache:
        """The cache that the run was trained on.

        Raises:
            CacheError: it is missing or damaged.
            RunError: it holds other features, videos or folds than it did.
        """
        if not isfile(self.cache):
            raise CacheError(
                f"{self.cache}: no such file; if it was moved, say so in {self.folder}/config.json"
            )
        cache = FeatureCache(self.cache)
        if cache.digest != self.cache_digest:
            raise RunError(
                f"{self.folder}: {self.cache} was made anew since this run began; train another"
            )
        return cache

    def summary(self) -> dict[str, Any]:
        """What `finish` wrote.

        Raises:
            RunError: the run is not finished, or the file is damaged.
        """
        return _read_json(self.folder / "summary.json")

    def finish(self, summary: dict[str, Any]) -> None:
        """Marks the run as finished, with its result."""
        write_text(self.folder / "summary.json", json.dumps(summary, indent=1) + "\n")


def create_run(folder: Path, config: TrainConfig, cache: FeatureCache) -> Run:
    """Begins a run in a new folder.

    Raises:
        RunError: the folder holds a run already.
    """
    path = folder / "config.json"
    if path.exists():
        raise taken(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, config, cache.path.resolve(), cache.digest)
    content = {
        "attnact": __version__,
        "dataset": cache.name,
        "cache": str(run.cache),
        "cache_digest": run.cache_digest,
        "train": asdict(config),
    }
    try:
        write_new(path, json.dumps(seal(content, free="cache"), indent=1) + "\n")
    except FileExistsError:  # by another process since
        raise taken(folder) from None
    return run


def open_run(folder: Path) -> Run:
    """A run that was begun.

    Raises:
        RunError: there is none in the folder, or its config is damaged.
    """
    if not (folder / "config.json").is_file():
        near = next(Path("runs").glob(f"*/{glob.escape(folder.name)}/config.json"), None)
        hint = f"did you mean {near.parent}?" if near else "is this the folder of a run?"
        raise RunError(f"{folder}/config.json: no such file; {hint}")
    content = _read_json(folder / "config.json")
    try:
        check_seal(content, free="cache")  # whose digest says whether it is the same cache
        config = TrainConfig(**content["train"])
        digest = str(content["cache_digest"])
        return Run(folder, config, _cache_of(folder, Path(content["cache"]), digest), digest)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder / 'config.json'}: damaged ({error})") from error


def _cache_of(folder: Path, cache: Path, digest: str) -> Path:
    """Where the cache of a run is; if it is gone, in the features/ that moved with the run."""
    if not isfile(cache):
        for parent in folder.resolve().parents:
            moved = parent / "features" / cache.name
            with suppress(CacheError):
                if isfile(moved) and FeatureCache(moved).digest == digest:
                    return moved
    return cache


@contextmanager
def only_here(run: Run) -> Iterator[None]:
    """Keeps other processes from training the run as long as this one does, or lives.

    Raises:
        RunBusyError: another process trains it.
    """
    place = run.folder / "train"
    lock = lock_beside(place)
    if lock is None:
        raise RunBusyError(
            f"{run.folder}: another process trains this run; wait for it, or stop it"
        )
    try:
        yield
    finally:
        unlock(place, lock)


def free_name(folder: Path, config: TrainConfig) -> Path:
    """A folder for a run that is not given a name: `paper-fold1-seed0`, or that with a number."""
    name = f"{config.recipe}-fold{config.fold}-seed{config.seed}"
    number = 2
    path = folder / name
    while path.exists():
        path = folder / f"{name}-{number}"
        number += 1
    return path


def taken(folder: Path) -> RunError:
    """What is said of a folder that holds a run already."""
    return RunError(f"{folder}: holds a run; --resume it, or choose another --name")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RunError(f"{path}: no such file; has the run finished?")
    try:
        return parse(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error})") from error
