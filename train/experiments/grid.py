"""Many runs: the rows of a table × seeds × folds, each a run of its own.

A grid that was stopped goes on where it stood, and a run that fails leaves the others. Several
processes may train one grid: a run belongs to one of them. Where it is faster, runs that differ in
nothing but λ and seed train side by side (`lockstep`).
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import torch

from attnact.cache.features import FeatureCache
from attnact.errors import AttnactError, RunBusyError, RunError
from attnact.machine.progress import note
from attnact.train.config import TrainConfig
from attnact.train.experiments.rows import Row, row_of
from attnact.train.feed.places import FeatureStore
from attnact.train.lockstep import FAILURES, abreast
from attnact.train.loop import train_together
from attnact.train.runs import Run, create_run, open_run
from attnact.train.scoring.predictions import read_predictions
from attnact.train.selection import sides_of

Cell = tuple[str, int, str]  # the name of a row, a seed, a fold
Outcomes = Iterator[tuple[Cell, Run | Exception]]  # the run of each, or what it failed on
Train = Callable[[Path, Mapping[Cell, TrainConfig]], Outcomes]  # who trains the cells of a folder

SECONDS_BETWEEN_LOOKS = 0.5  # at runs that another process trains


@dataclass(frozen=True)
class Grid:
    """The rows of which a seed is there, and (run folder, reason) of each run that failed."""

    rows: list[Row]
    failures: list[tuple[Path, str]]


def train_grid(
    folder: Path,
    cache: FeatureCache,
    train: Train,
    rows: Mapping[str, TrainConfig],
    seeds: Sequence[int],
    folds: Sequence[str],
) -> Grid:
    """Trains whatever is not yet trained, and gathers the results; tells what each run gave.

    Args:
        folder: of the grid; each run is a folder in it.
        train: `train_here`, or what trains elsewhere.
        rows: name -> every choice but seed and fold.

    Raises:
        AttnactError: a run there was made with other choices; nothing is trained then.
        ValueError: a seed that is out of range; nothing is trained then.
    """
    runs: dict[Cell, Run] = {}
    failures: list[tuple[Path, str]] = []
    cells = {
        (name, seed, fold): replace(config, seed=seed, fold=fold)
        for (name, config), seed, fold in product(rows.items(), seeds, folds)
    }
    _check_choices(folder, cells, cache)
    for number, (cell, outcome) in enumerate(train(folder, cells), 1):
        path = _path(folder, cell)
        if isinstance(outcome, Exception):
            failures.append((path, str(outcome)))
            note(f"{number}/{len(cells)} {path.name}: failed: {outcome}")
            continue
        runs[cell], result = outcome, outcome.summary()
        told = f"{result['metric']} {result['value']:.3f}"
        note(f"{number}/{len(cells)} {path.name}: {told}")
    found = []
    for name, config in rows.items():
        # Half of a seed's folds would be another test set.
        whole = {
            seed: [runs[name, seed, fold] for fold in folds]
            for seed in seeds
            if all((name, seed, fold) in runs for fold in folds)
        }
        if whole:
            found.append(row_of(name, config, whole, cache))
    paths = {_path(folder, cell) for cell in cells}
    if others := sum(path.parent not in paths for path in folder.glob("*/config.json")):
        note(f"not asked for, and not in what is written: {others} of the runs in {folder}")
    return Grid(found, failures)


def train_here(
    cache: FeatureCache,
    open_store: Callable[[], FeatureStore],
    device: torch.device,
    tensorboard: bool,
    folder: Path,
    cells: Mapping[Cell, TrainConfig],
) -> Outcomes:
    """Trains the cells in this process; those that another one trains are waited for.

    open_store: opens the features, when there is something to train.
    device: which they are for.
    tensorboard: write TensorBoard's files too.
    """
    left = deque(_groups(folder, cells, device))
    idle = 0  # groups in a row of which other processes train every run
    while left:
        if idle >= len(left):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        idle += 1
        busy: dict[Cell, TrainConfig] = {}
        for cell, outcome in train_cells(folder, left.popleft(), cache, open_store, tensorboard):
            if isinstance(outcome, RunBusyError):
                busy[cell] = cells[cell]
                continue
            idle = 0
            yield cell, outcome
        if busy:
            left.append(busy)


def _groups(
    folder: Path, cells: Mapping[Cell, TrainConfig], device: torch.device
) -> list[dict[Cell, TrainConfig]]:
    """Those together that train side by side, the rest by themselves, as their first ones stand.

    A seed is taken apart only if its runs are too many: a batch is brought once for all of them.
    """
    groups: list[list[Cell]] = []
    alike: dict[TrainConfig, dict[int, list[Cell]]] = {}  # by seed
    for cell, config in cells.items():
        if abreast(config, device) == 1 or _finished(folder, cell):
            groups.append([cell])
        else:
            choices = replace(config, attention_penalty=0.0, seed=0)
            alike.setdefault(choices, {}).setdefault(config.seed, []).append(cell)
    for config, seeds in alike.items():
        groups += _packed(seeds.values(), abreast(config, device))
    places = {cell: place for place, cell in enumerate(cells)}
    groups.sort(key=lambda group: places[group[0]])
    return [{cell: cells[cell] for cell in group} for group in groups]


def _packed(seeds: Iterable[list[Cell]], most: int) -> list[list[Cell]]:
    """The runs of some seeds in groups of so many, one after the other."""
    groups: list[list[Cell]] = [[]]
    for runs in seeds:
        if len(groups[-1]) + len(runs) > most:
            groups.append([])
        groups[-1] += runs[:most]
        groups += [runs[start : start + most] for start in range(most, len(runs), most)]
    return [group for group in groups if group]


def _finished(folder: Path, cell: Cell) -> bool:
    return (_path(folder, cell) / "summary.json").is_file()


def train_cells(
    folder: Path,
    group: Mapping[Cell, TrainConfig],
    cache: FeatureCache,
    open_store: Callable[[], FeatureStore],
    tensorboard: bool,
) -> Outcomes:
    """Trains whatever of the group is not yet trained; the run of each, or what it failed on."""
    if not all(_finished(folder, cell) for cell in group):
        open_store()  # before a run is begun
    left = {}
    for cell, config in group.items():
        try:
            run = _begin(_path(folder, cell), config, cache)
        except FAILURES as error:
            yield cell, error
            continue
        if run.finished:
            yield cell, _whole(run, cache)
        else:
            left[cell] = run
    if not left:
        return
    for run, outcome in train_together(list(left.values()), cache, open_store(), tensorboard):
        cell = next(cell for cell, one in left.items() if one is run)
        yield cell, outcome if isinstance(outcome, Exception) else _whole(run, cache)


def _whole(run: Run, cache: FeatureCache) -> Run | Exception:
    """A finished run; what it left may have been damaged since."""
    try:
        run.summary()
        read_predictions(run.predictions, cache)
    except FAILURES as error:
        return error
    return run


def _path(folder: Path, cell: Cell) -> Path:
    name, seed, fold = cell
    return folder / f"{name}-fold{fold}-seed{seed}"


def _begin(path: Path, config: TrainConfig, cache: FeatureCache) -> Run:
    if not (path / "config.json").exists():
        sides_of(cache, config)  # before anything is written
        with suppress(RunError):  # another process has begun it since
            return create_run(path, config, cache)
    run = open_run(path)
    if other := _unlike(run, config, cache):
        raise AttnactError(other)
    return run


def _check_choices(folder: Path, cells: Mapping[Cell, TrainConfig], cache: FeatureCache) -> None:
    """Holds what is asked for against the runs that are there.

    Raises:
        AttnactError: one was made with other choices; a table of both would compare nothing.
    """
    for cell, config in cells.items():
        with suppress(RunError):  # which is told when its turn comes
            if (_path(folder, cell) / "config.json").exists():
                run = open_run(_path(folder, cell))
                if other := _unlike(run, config, cache):
                    raise AttnactError(other)


def _unlike(run: Run, config: TrainConfig, cache: FeatureCache) -> str:
    """Why a run is not the one that is asked for; empty if it is."""
    if run.cache_digest != cache.digest:
        return f"{run.folder}: made with another cache; use another --name"
    then, now = asdict(run.config), asdict(config)
    if others := [name for name in now if then[name] != now[name]]:
        made, asked = (", ".join(f"{n} {of[n]}" for n in others) for of in (then, now))
        return (
            f"{run.folder}: made with {made}, now asked for {asked}; choose as before "
            f"(--config {run.folder}/config.json, and the --seeds and --folds of then), "
            "or use another --name"
        )
    return ""
