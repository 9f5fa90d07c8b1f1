"""One byte of a file flips: loading or `cache verify` finds it, or what is loaded is the same.

Each flip is tried in a fork, for HDF5 may crash on bytes that make no sense, or never end.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from attnact.cache.feature_index import Listing, write_index
from attnact.cache.features import FeatureCache
from attnact.cache.shards import shard_path
from attnact.errors import AttnactError
from attnact.extract.plan import read_plan
from attnact.model.checkpoint import load_checkpoint, load_state
from attnact.train.runs import open_run
from tests.torture.judging import Row
from tests.torture.making import CACHE, RUN, made
from tests.torture.processes import start

FOUND, HARMLESS, SILENT, CRASHED, HUNG = range(5)
SECONDS = 60.0  # a load takes well under one


def index() -> Any:
    """Every table of the cache's index."""
    cache = FeatureCache(CACHE)
    tables = {name: value for name, value in vars(cache).items() if name[0] != "_"}
    return {**tables, "rows": cache.rows, "features": cache.read(0, cache.frames)}


def shard() -> Any:
    """What `cache verify` says, and every feature."""
    cache = FeatureCache(CACHE)
    if problems := [problem for problem in cache.verify() if problem]:
        raise AttnactError(problems[0])
    return cache.read(0, cache.frames)


def index_of_shards() -> Any:
    """The index, written again over the shards."""
    old = FeatureCache(CACHE)
    folds = {name: np.zeros(99, np.int8) for name in old.folds}
    paths = [f"{n}.avi" for n in range(99)]
    nothing = np.zeros(99, np.int64)
    listing = Listing(old.name, old.root, old.classes, paths, nothing, paths, folds, range(99))
    again = Path("again.h5")
    shutil.copytree(CACHE.with_suffix(".shards"), again.with_suffix(".shards"))
    shards = range(len(list(again.with_suffix(".shards").glob("*.h5"))))
    new = write_index(again, shards, listing, {})
    return new.rows, new.digest, new.dtype


# What is loaded, and the file in which a byte flips.
TARGETS: dict[str, tuple[Callable[[], Any], Path]] = {
    "a cache's index": (index, CACHE),
    "a shard": (shard, shard_path(CACHE, 1)),
    "a shard before the index": (index_of_shards, shard_path(CACHE, 1)),
    "`plan.json`": (lambda: read_plan(CACHE), shard_path(CACHE, 0).with_name("plan.json")),
    "`model.safetensors`": (lambda: weights(), RUN / "model.safetensors"),
    "`last.ckpt`": (lambda: load_state(RUN / "last.ckpt"), RUN / "last.ckpt"),
    "`config.json` of a run": (lambda: config(), RUN / "config.json"),
}


def config() -> Any:
    """The choices of a run, and the cache that it opens; the path of the cache may change."""
    run = open_run(RUN)
    return run.folder, run.config, run.cache_digest, run.open_cache().path.name


def weights() -> Any:
    """The model and its description."""
    found = load_checkpoint(RUN / "model.safetensors")
    said = (found.model.config, found.classes, found.multi_label, found.features)
    return dict(found.model.state_dict()), said


def rows(folder: Path, seed: int, trials: int | None) -> Iterator[Row]:
    """A row for each kind of file; `trials` flips of each."""
    made(folder)
    for number, (name, (load, file)) in enumerate(TARGETS.items()):
        random = np.random.default_rng([seed, number])
        yield flips(name, load, file, trials or 300, random)


def flips(
    name: str, load: Callable[[], Any], file: Path, trials: int, random: np.random.Generator
) -> Row:
    """Flips so many bytes of the file, one at a time."""
    content = file.read_bytes()
    expected = in_place(load)
    assert attempt(load, expected)[0] == HARMLESS  # or nothing that follows would say anything
    places = tables(file) if file.suffix == ".h5" else np.arange(len(content))
    row = Row(f"a byte of {name}", trials)
    counts = [0] * 5
    for _ in range(trials):
        everywhere = random.random() < 0.5
        at = int(random.integers(len(content)) if everywhere else random.choice(places))
        change = int(random.integers(1, 256))
        damaged = bytearray(content)
        damaged[at] ^= change
        file.write_bytes(damaged)
        outcome, words = attempt(load, expected)
        counts[outcome] += 1
        if outcome not in (FOUND, HARMLESS):
            row.wrong.append(f"byte {at} of {len(content)} ^ {change}: {words}")
    file.write_bytes(content)
    row.note = f"{counts[FOUND]} found, {counts[HARMLESS]} harmless"
    return row


def tables(file: Path) -> Any:
    """The bytes of an HDF5 file that hold no features: a hundredth of a shard, and half the flips.

    Features are the bytes of chunks, as HDF5 tells where they lie.
    """
    free = np.ones(file.stat().st_size, bool)
    with h5py.File(file) as opened:
        if opened["features"].chunks:
            opened["features"].id.chunk_iter(
                lambda chunk: free.__setitem__(
                    slice(chunk.byte_offset, chunk.byte_offset + chunk.size), False
                )
            )
    return np.flatnonzero(free)


def attempt(load: Callable[[], Any], expected: Any) -> tuple[int, str]:
    """What comes of loading the file as it is now."""

    def work() -> None:
        try:
            found = in_place(load)
        except AttnactError as error:
            raise SystemExit(SILENT if "\n" in str(error) else FOUND) from None
        raise SystemExit(HARMLESS if same(found, expected) else SILENT)

    process = start(work, Path("log"))
    code = process.wait(SECONDS)
    if code is None:
        process.end()
        process.wait()
        return HUNG, "hangs"
    if code == SILENT:
        return SILENT, "loads, and is not the same"
    return (code, "") if code in (FOUND, HARMLESS) else (CRASHED, f"{code} {process.text()[-300:]}")


def in_place(load: Callable[[], Any]) -> Any:
    """What is loaded, without what was written in doing so."""
    try:
        return load()
    finally:
        shutil.rmtree("again.shards", ignore_errors=True)
        Path("again.h5").unlink(missing_ok=True)


def same(a: Any, b: Any) -> bool:
    """Whether two loaded things are equal, to the bit."""
    if isinstance(a, torch.Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)
