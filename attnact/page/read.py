"""What run folders tell of themselves: their choices, epochs and scores, without their cache."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from attnact.errors import RunError
from attnact.machine.sealed import parse
from attnact.page.folders import names_of, tree
from attnact.train.config import TrainConfig, effective, idle
from attnact.train.runs import Run, open_run
from attnact.train.scoring.predictions import Predictions, read_scores
from attnact.train.scoring.scores import metric_name
from attnact.train.selection import FINAL

NONE = "–"  # a choice that was not made
SPOKEN_OF = 3  # runs that are repeats, by name


@dataclass(frozen=True)
class ShownRun:
    """A run on the page.

    name: of its folder, or the whole path where two folders have one name.
    history: the lines of its `metrics.jsonl`.
    predictions: None while it is not finished.
    features: the backbone and its weights, as far as they are known.
    random_weights: whether those are random, as far as it is known.
    """

    run: Run
    name: str
    history: list[dict[str, Any]]
    predictions: Predictions | None
    features: str
    random_weights: bool

    @property
    def epochs(self) -> int:
        """That its model was trained for; those that chose how many are not counted."""
        return sum(line.get("phase") == FINAL for line in self.history)


@dataclass(frozen=True)
class Setting:
    """Runs of one cache and the same choices but for seed and fold."""

    name: str
    config: TrainConfig
    runs: list[ShownRun]

    @property
    def scored(self) -> list[Predictions]:
        """What its finished runs predicted."""
        return [run.predictions for run in self.runs if run.predictions is not None]

    @property
    def value(self) -> str:
        """The metric in percent: of one run, or the mean and the range of several."""
        values = [100 * predictions.value for predictions in self.scored]
        if len(values) < 2:
            return f"{values[0]:.2f}" if values else "not finished"
        return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    @property
    def metric(self) -> str:
        """What the value is of; empty where no run is finished."""
        return metric_name(self.scored[0].multi_label) if self.scored else ""


def find_runs(paths: Sequence[Path]) -> tuple[list[ShownRun], list[str]]:
    """The runs that these folders are or hold, each once; and a line for each that is damaged.

    Raises:
        RunError: a folder is no run and holds none, or a run that was named is damaged.
    """
    folders: dict[Path, Path] = {}
    notes: list[str] = []
    found = []
    for path in paths:
        inside = tree(path).runs
        if not inside:
            raise RunError(f"{path}: neither a run nor a folder of runs")
        for folder in inside:
            folders.setdefault(folder.resolve(), folder)
    names = names_of(list(folders.values()))
    for folder, name in zip(folders.values(), names, strict=True):
        try:
            found.append(read_run(folder, name))
        except RunError as error:
            if folder in paths:
                raise
            notes.append(f"Left out: {error}")
    return found, notes


def read_run(folder: Path, name: str) -> ShownRun:
    """A run, finished or not.

    Raises:
        RunError: a file of it is damaged.
    """
    run = open_run(folder)
    summary = run.summary() if run.finished else {}
    predictions = None
    if run.finished and run.predictions.is_file():
        predictions = read_scores(run.predictions, summary.get("metric") == metric_name(True))
    history = _history(run.metrics) if run.metrics.is_file() else []
    features = ", ".join(filter(None, (summary.get(key) for key in ("backbone", "weights"))))
    return ShownRun(run, name, history, predictions, features, bool(summary.get("random_weights")))


def without_repeats(runs: Sequence[ShownRun]) -> tuple[list[ShownRun], list[str]]:
    """The runs, of the very same choices on one cache the first finished one; and what is left out.

    A repeat would count its test videos once more, and is no other seed.
    """
    first: dict[tuple[str, TrainConfig], ShownRun] = {}
    for run in sorted(runs, key=lambda run: run.predictions is None):
        first.setdefault((run.run.cache_digest, effective(run.run.config)), run)
    kept, notes, repeats = [], [], []
    for run in runs:
        same = first[run.run.cache_digest, effective(run.run.config)]
        if same is run:
            kept.append(run)
        elif run.predictions is None:
            notes.append(f"Not finished: {run.name}")
        else:
            repeats.append(f"Left out: {run.name}: the same choices as {same.name}")
    if (more := len(repeats) - SPOKEN_OF) > 0:
        repeats[SPOKEN_OF:] = [f"Left out: {more} more that have the same choices as others"]
    return kept, notes + repeats


def settings_of(runs: Iterable[ShownRun]) -> list[Setting]:
    """The runs by what was chosen, in the order in which each choice comes first."""
    found: dict[tuple[str, TrainConfig], list[ShownRun]] = {}
    for run in runs:
        key = run.run.cache_digest, replace(effective(run.run.config), seed=0, fold="")
        found.setdefault(key, []).append(run)
    names: list[str] = []
    for members in found.values():
        name = _common_name([run.name for run in members])
        names.append(name if name not in names else members[0].name)
    return [
        Setting(name, config, members)
        for name, ((_, config), members) in zip(names, found.items(), strict=True)
    ]


def uneven(setting: Setting) -> str:
    """A line where some folds have more finished runs than others; else nothing."""
    counts = Counter(run.run.config.fold for run in setting.runs if run.predictions is not None)
    if len(set(counts.values())) < 2:
        return ""
    told = ", ".join(f"{count} of fold {fold}" for fold, count in sorted(counts.items()))
    return f"{setting.name}: {told}; its figure is the mean over these runs"


def differing(settings: Sequence[Setting]) -> dict[str, list[str]]:
    """Each choice in which the settings differ, but for seed and fold, and what each chose."""
    rows = _choices(settings)
    values = _values(rows)
    return {name: [row.get(name, NONE) for row in rows] for name in values if len(values[name]) > 1}


def common(settings: Sequence[Setting]) -> dict[str, str]:
    """Each choice that all settings share which read it, but for seed and fold."""
    values = _values(_choices(settings))
    return {name: next(iter(told)) for name, told in values.items() if len(told) == 1}


def _choices(settings: Sequence[Setting]) -> list[dict[str, str]]:
    """The choices of each in words, but those that its model does not read."""
    runs = [run for setting in settings for run in setting.runs]
    features = {run.run.cache_digest: run.features for run in runs if run.features}
    rows = []
    for setting in settings:
        run = setting.runs[0].run
        row = {"cache": f"{run.cache.stem} ({run.cache_digest[:8]})"}
        if run.cache_digest in features:
            row["features"] = features[run.cache_digest]
        skipped = {"seed", "fold", *idle(setting.config)}
        words = {name: _text(value) for name, value in asdict(setting.config).items()}
        rows.append(row | {name: word for name, word in words.items() if name not in skipped})
    return rows


def _values(rows: Sequence[dict[str, str]]) -> dict[str, set[str]]:
    """What was chosen for each name, in the order of the first row that has all of them."""
    names = dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row)
    return {name: {row[name] for row in rows if name in row} for name in names}


def _common_name(names: Sequence[str]) -> str:
    """`lambda0` for lambda0-fold1-seed0 and lambda0-fold2-seed0; else the first and how many."""
    if len(names) == 1:
        return names[0]
    heads = {name.rpartition("-fold")[0] for name in names}
    head = heads.pop() if len(heads) == 1 else ""
    return head or f"{names[0]} and {len(names) - 1} more"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else NONE if value is None else str(value)


def _history(path: Path) -> list[dict[str, Any]]:
    try:
        lines = [parse(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            for name in ("epoch", "loss", "validation", "validation_loss"):
                if name in line:
                    line[name] = float(line[name])
    except (TypeError, ValueError) as error:
        raise RunError(f"{path}: damaged ({error})") from error
    return lines
