"""Five questions about the paper's model, each answered with numbers, intervals and a picture.

The models are those of a Table 1 (`table1.py`); every number is over its test videos and seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from attnact.cache.features import FeatureCache
from attnact.cache.provenance import titled
from attnact.train.experiments import charts
from attnact.train.experiments.by_video import (
    attention_of,
    compare,
    groups_of,
    right_of,
    row_videos,
)
from attnact.train.experiments.grid import Grid
from attnact.train.experiments.rows import Row
from attnact.train.experiments.table1 import NAMES, difference_table, differences
from attnact.train.experiments.tables import listed, mean_sd, percent
from attnact.train.feed.clips import step_at
from attnact.train.scoring.looks import (
    Agreement,
    Maps,
    VideoMaps,
    centre_agreement,
    motion_agreement,
    pair_agreement,
    seed_agreement,
)
from attnact.train.scoring.measures import bootstrap_mean, error_by_quartile, error_trend
from attnact.train.scoring.scores import metric_name

RATES = (30.0, 15.0, 6.0)  # frames a second, as the paper compares them


@dataclass(frozen=True)
class Seen:
    """Where the models of one row of attention look in its test videos.

    row: of the Table 1.
    at: frame rate -> seed -> the looks into each test video, in the order of `row_videos`.
    own: the looks at the frame rate that the models are scored at, by seed.
    """

    row: Row
    at: Mapping[float, Mapping[int, Sequence[VideoMaps]]]
    own: Mapping[int, Sequence[VideoMaps]]

    @property
    def name(self) -> str:
        """What people read."""
        return NAMES[self.row.name]

    @property
    def penalty(self) -> str:
        """λ."""
        return f"{self.row.config.attention_penalty:g}"


@dataclass(frozen=True)
class Answer:
    """A question, what was found in a sentence, and the table; the picture is `<file>.png`."""

    file: str
    question: str
    finding: str
    table: list[list[str]]


def does_attention_help(folder: Path, found: Grid, cache: FeatureCache) -> Answer:
    """Attention against each baseline, on the same test videos."""
    metric, compared = metric_name(cache.multi_label), differences(found, cache)
    drawn = {f"{NAMES[it.row]} − {NAMES[it.baseline]}": it.interval for it in compared}
    charts.plot_intervals(
        folder / "1-attention.png",
        {name: it.scaled(100) for name, it in drawn.items()},
        f"difference in {metric}, points",
        titled(cache.path.stem, cache.random_weights),
    )
    above = sum(it.interval.low > 0 for it in compared)
    below = sum(it.interval.high < 0 for it in compared)
    rest = len(compared) - above - below
    finding = (
        f"Of {len(compared)} comparisons, attention is better in {above} and worse in {below}, "
        f"each with 95 % confidence; in {rest} this data does not tell."
    )
    table = difference_table(compared, metric)
    return Answer("1-attention", "Does attention help?", finding, table)


def what_does_lambda_do(folder: Path, rows: Sequence[Row], cache: FeatureCache) -> Answer:
    """Accuracy and the spread of attention by λ, and what changes from the smallest λ on."""
    metric = metric_name(cache.multi_label)
    title = titled(f"{cache.path.stem}: what the attention penalty λ does", cache.random_weights)
    charts.plot_sweep(folder / "2-lambda.png", Grid(list(rows), []), metric, title)
    header = ["λ", f"{metric} %", "less that of the first λ, points"]
    header += ["entropy, nats", "locations with 90 % of it, %"]
    table, spreads = [header], []
    for row in rows:
        groups = groups_of(row, cache)
        looks = np.stack([attention_of(row, seed, cache) for seed in row.runs])  # (S, V, 2)
        entropy, spread = (bootstrap_mean(looks[..., i], groups) for i in (0, 1))
        spreads.append(spread)
        paired = row is not rows[0] and set(row.runs) & set(rows[0].runs)
        change = str(compare(row, rows[0], cache).scaled(100)) if paired else ""
        penalty = f"{row.config.attention_penalty:g}"
        value = mean_sd(percent(row.values))
        table.append([penalty, value, change, str(entropy), str(spread.scaled(100))])
    finding = (
        f"At λ = {table[1][0]} 90 % of the attention lies on {100 * spreads[0].value:.0f} % of the "
        f"locations, at λ = {table[-1][0]} on {100 * spreads[-1].value:.0f} %; looking everywhere "
        "alike would be 92 %. The paper says that a small λ looks at a small part of the frame "
        "and a large λ at almost all of it."
    )
    return Answer("2-lambda", "What does λ do?", finding, table)


def where_does_it_look(
    folder: Path, seen: Sequence[Seen], motion: Sequence[Maps], cache: FeatureCache
) -> Answer:
    """Agreement with motion, beside the same maps shuffled in time, and with the centre."""
    table = [["model", "with motion", "shuffled in time", "difference", "with the centre"]]
    drawn = {}
    for it in seen:
        groups = groups_of(it.row, cache)
        moving = stacked([motion_agreement(looks, motion) for looks in it.own.values()])
        centre = np.stack([centre_agreement(looks) for looks in it.own.values()])
        more = bootstrap_mean(moving.same - moving.other, groups)
        drawn[it.name] = more
        means = [bootstrap_mean(values, groups) for values in (moving.same, moving.other)]
        table.append([it.name, *map(str, (*means, more, bootstrap_mean(centre, groups)))])
    charts.plot_intervals(
        folder / "3-motion.png",
        drawn,
        "agreement with motion, over that shuffled in time",
        titled(cache.path.stem, cache.random_weights),
    )
    moved = [it.penalty for it in seen if drawn[it.name].low > 0]
    who = f"the model{'s' * (len(moved) > 1)} with λ = {listed(moved)}" if moved else "no model"
    known = [interval for interval in drawn.values() if not np.isnan(interval.value)]
    most = str(max(known, key=lambda interval: interval.value)) if known else "an unknown amount"
    finding = (
        f"Where something moves at that moment: {who} can be said, with 95 % confidence, to agree "
        f"with motion more than when shuffled in time; the most by {most}. Agreement is the "
        "correlation of two maps over the 49 locations: 1 for equal maps, 0 for chance; a map that "
        "looks everywhere alike agrees with nothing."
    )
    return Answer("3-motion", "Where does it look?", finding, table)


def does_the_frame_rate_matter(folder: Path, seen: Sequence[Seen], cache: FeatureCache) -> Answer:
    """Agreement of one model's maps at the same frames of clips at two frame rates."""
    header = ["model", "frame rates", "same frames", "different videos", "difference"]
    table, drawn = [header], {}
    for it in seen:
        groups, seeds = groups_of(it.row, cache), list(it.row.runs)
        found = [pair_agreement([it.at[rate][seed] for rate in RATES]) for seed in seeds]
        for i, j in combinations(range(len(RATES)), 2):
            pair = stacked([of_seed[i, j] for of_seed in found])
            # A slow video's clips are the same at both rates, and so are their maps.
            form, own = it.row.config.clip_form, cache.frame_rates[row_videos(it.row, cache)]
            alike = [len({step_at(known, RATES[k], form) for k in (i, j)}) == 1 for known in own]
            pair.same[:, alike] = np.nan
            more = bootstrap_mean(pair.same - pair.other, groups)
            rates = f"{RATES[i]:g} and {RATES[j]:g}"
            drawn[f"{it.name}: {rates}"] = more
            means = [bootstrap_mean(values, groups) for values in pair]
            table.append([it.name, rates, *map(str, (*means, more))])
    charts.plot_intervals(
        folder / "4-frame-rate.png",
        drawn,
        "agreement, over that of different videos",
        titled(cache.path.stem, cache.random_weights),
    )
    known = {name: it for name, it in drawn.items() if not np.isnan(it.value)}
    finding = (
        "The same model, given clips at 30, 15 and 6 frames a second: 1 would be the same maps at "
        "the same frames. "
    )
    if known:
        lowest = min(known, key=lambda name: known[name].value)
        finding += f"Over the control the least agreement is {known[lowest]}, of {lowest}."
    else:
        finding += "No maps can be compared: they look everywhere alike."
    return Answer("4-frame-rate", "Does the frame rate change where it looks?", finding, table)


def how_stable_is_it(
    folder: Path, seen: Sequence[Seen], motion: Sequence[Maps], cache: FeatureCache
) -> Answer:
    """Spread over seeds, agreement between seeds, and whether errors go with stray attention."""
    header = ["model", f"{metric_name(cache.multi_label)} %", "maps of two seeds", "of two videos"]
    header += ["errors by quarter of agreement with motion, %", "stray when wrong"]
    table, drawn = [header], {}
    for it in seen:
        groups = groups_of(it.row, cache)
        wrong = 1 - np.stack([right_of(it.row, seed, cache) for seed in it.row.runs])
        moving = stacked([motion_agreement(looks, motion) for looks in it.own.values()])
        quarters = error_by_quartile(moving.same, wrong, groups)
        for number, interval in enumerate(quarters, 1):
            drawn[f"{it.name}: quarter {number}"] = interval.scaled(100)
        between = ["", ""]
        if len(it.own) > 1:
            pair = seed_agreement(list(it.own.values()))
            between = [str(bootstrap_mean(values, groups)) for values in pair]
        values = [100 * interval.value for interval in quarters]
        errors = ", ".join("none" if np.isnan(value) else f"{value:.0f}" for value in values)
        trend = str(error_trend(moving.same, wrong, groups))
        table.append([it.name, mean_sd(percent(it.row.values)), *between, errors, trend])
    charts.plot_intervals(
        folder / "5-stability.png",
        drawn,
        "errors (%), by quarter of agreement with motion",
        titled(cache.path.stem, cache.random_weights),
    )
    finding = (
        "The metric is the mean ± sd over the seeds. Quarter 1 are the videos whose maps agree "
        "least with motion. Stray when wrong is the chance that a video that was got wrong agrees "
        "less than one that was got right: 0.5 is no relation. It does not tell whether one "
        "causes the other: a class can be both hard and still."
    )
    return Answer("5-stability", "How stable is it?", finding, table)


def stacked(found: Sequence[Agreement]) -> Agreement:
    """The agreements of several seeds as one, (S, V)."""
    return Agreement(*(np.stack(parts) for parts in zip(*found, strict=True)))
