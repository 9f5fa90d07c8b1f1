"""The paper's Table 1 on any cache: its six rows beside its figures, and attention against each
baseline on the same test videos.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from attnact.cache.features import FeatureCache
from attnact.cache.provenance import titled
from attnact.machine.files import write_text
from attnact.train.config import TrainConfig
from attnact.train.experiments import charts
from attnact.train.experiments.by_video import compare, groups_of
from attnact.train.experiments.grid import Grid
from attnact.train.experiments.rows import overlapping
from attnact.train.experiments.tables import (
    about,
    listed,
    markdown,
    mean_sd,
    other_choices,
    percent,
)
from attnact.train.scoring.measures import FEWEST, Interval
from attnact.train.scoring.predictions import write_csv
from attnact.train.scoring.scores import metric_name

NAMES = {
    "softmax": "softmax regression",
    "average": "average-pooled LSTM",
    "max": "max-pooled LSTM",
    "lambda0": "soft attention, λ = 0",
    "lambda1": "soft attention, λ = 1",
    "lambda10": "soft attention, λ = 10",
}
BASELINES, ATTENTION = list(NAMES)[:3], list(NAMES)[3:]

# What the paper reports, in percent: accuracy, accuracy, mean average precision.
PAPER: Mapping[str, Sequence[float]] = {
    "ucf11": (82.37, 82.56, 81.60, 84.96, 83.52, 81.44),
    "hmdb51": (33.46, 40.52, 37.58, 41.31, 40.98, 39.87),
    "hollywood2": (34.62, 43.19, 43.22, 43.91, 43.18, 42.92),
}


@dataclass(frozen=True)
class Difference:
    """By how much one row is better than another, a share, on the same test videos."""

    row: str
    baseline: str
    interval: Interval


def table1_rows(config: TrainConfig) -> dict[str, TrainConfig]:
    """The six rows: every choice of the config but the model and λ."""
    baselines = {
        "softmax": replace(config, model="softmax"),
        "average": replace(config, model="average"),
        "max": replace(config, model="max"),
    }
    penalties = {"lambda0": 0.0, "lambda1": 1.0, "lambda10": 10.0}
    return baselines | {
        name: replace(config, attention_penalty=penalty) for name, penalty in penalties.items()
    }


def differences(found: Grid, cache: FeatureCache) -> list[Difference]:
    """Each row of attention against each baseline, over the seeds that both have."""
    rows = {row.name: row for row in found.rows}
    return [
        Difference(name, baseline, compare(rows[name], rows[baseline], cache))
        for name in ATTENTION
        for baseline in BASELINES
        if name in rows and baseline in rows and set(rows[name].runs) & set(rows[baseline].runs)
    ]


def write_table1(
    folder: Path, cache: FeatureCache, found: Grid, config: TrainConfig, folds: Sequence[str]
) -> str:
    """Writes `table1.csv`, `.md` and `.png` and `differences.csv`; gives the Markdown to show."""
    if not found.rows:
        return f"no row has all its runs; see the failures ({folder})"
    metric = metric_name(cache.multi_label)
    compared = differences(found, cache)
    rows, against = table1_table(found, metric, cache.name), difference_table(compared, metric)
    parts = [markdown(rows), f"{context(cache, config, folds)}\n"]
    if compared:
        parts += [markdown(against), f"{how_sure(found, cache, folds)}\n"]
    text = "\n".join(parts)
    write_csv(folder / "table1.csv", rows, cache.random_weights)
    write_csv(folder / "differences.csv", against, cache.random_weights)
    write_text(folder / "table1.md", text)
    title = f"{cache.path.stem}: Table 1 with recipe {config.recipe}"
    title = titled(title, cache.random_weights)
    values = {NAMES[row.name]: row.values for row in found.rows}
    drawn = {f"{NAMES[it.row]} − {NAMES[it.baseline]}": it.interval for it in compared}
    charts.plot_table1(folder / "table1.png", values, drawn, metric, title)
    return f"{text}\n{folder / 'table1.png'}"


def table1_table(found: Grid, metric: str, dataset: str) -> list[list[str]]:
    """The rows as text beside the paper's figures, which are blank for other data."""
    paper = dict(zip(NAMES, PAPER.get(dataset, ()), strict=False))
    header = ["model", f"{metric} %", "seeds", f"the paper's {metric} %"]
    rows = [
        [
            NAMES[row.name],
            mean_sd(percent(row.values)),
            str(len(row.values)),
            f"{paper[row.name]:.2f}" if row.name in paper else "",
        ]
        for row in found.rows
    ]
    return [header, *rows]


def difference_table(compared: Sequence[Difference], metric: str) -> list[list[str]]:
    """The differences as text, in points."""
    header = ["model", "against", f"difference in {metric}, points (95 % interval)"]
    rows = [
        [
            NAMES[it.row],
            NAMES[it.baseline],
            str(it.interval.scaled(100)),
        ]
        for it in compared
    ]
    return [header, *rows]


def how_sure(found: Grid, cache: FeatureCache, folds: Sequence[str]) -> str:
    """What the intervals of the differences are, in a sentence or more."""
    said = [
        "Paired over the test videos and seeds; 95 % percentile bootstrap over groups of videos "
        "and over seeds, each interval by itself: nothing is corrected for their number."
    ]
    if any(len(np.unique(groups_of(row, cache))) < FEWEST for row in found.rows):
        said.append(f"Test videos of fewer than {FEWEST} groups give no interval.")
    if any(len(row.runs) == 1 for row in found.rows):
        said.append("Of one seed the interval is of that one model, not of another training.")
    if overlapping(cache, folds):
        said.append(
            "A video that several folds test counts once, so that a difference is not quite that "
            "of the rows."
        )
    return " ".join(said)


def context(cache: FeatureCache, config: TrainConfig, folds: Sequence[str]) -> str:
    """What the table is of, and what is not as the paper had it."""
    return f"{about(cache, config, folds)} {departures(cache, config, folds)}".rstrip()


def departures(cache: FeatureCache, config: TrainConfig, folds: Sequence[str]) -> str:
    """What is known not to be as the paper had it, in a sentence."""
    made, imported = cache.provenance, "source" in cache.provenance
    found = []
    if imported:
        found.append("what made the features is not known")
    elif made["backbone"] != "bvlc_googlenet":
        found.append(f"the backbone is {made['backbone']}, the paper's is Caffe's")
    if cache.random_weights:
        found.append("the weights of the backbone are random")
    if cache.failures:
        lost = len(cache.failures)
        found.append(f"{lost} video{'s' * (lost > 1)} could not be read")
    if cache.name == "ucf11" and not imported:
        found.append("the split is by group, the paper's was never published")
    if cache.name == "hmdb51" and list(folds) != ["1"]:
        found.append("the paper used the first fold alone")
    if cache.name not in PAPER:
        found.append("the data set is another")
    if config.recipe != "paper":
        found.append(f"the recipe is {config.recipe}")
    if other := other_choices(cache, config):
        found.append(f"{listed(other)} {'is' if len(other) == 1 else 'are'} not the recipe's")
    return f"Not as in the paper: {'; '.join(found)}." if found else ""
