"""The sweep over the attention penalty λ: its rows, its table, its files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attnact.cache.features import FeatureCache
from attnact.cache.provenance import titled
from attnact.machine.files import write_text
from attnact.train.config import TrainConfig
from attnact.train.experiments import charts
from attnact.train.experiments.grid import Grid
from attnact.train.experiments.tables import about, markdown, mean_sd, percent
from attnact.train.scoring.predictions import write_csv
from attnact.train.scoring.scores import metric_name


def sweep_rows(config: TrainConfig, penalties: Sequence[float]) -> dict[str, TrainConfig]:
    """A row for each λ.

    Raises:
        ValueError: a λ below 0, a model without attention, or two λ whose runs would have one name.
    """
    rows = {f"lambda{p:g}": replace(config, attention_penalty=p) for p in penalties}
    if len(rows) < len(penalties):
        raise ValueError("two λ are the same in six digits, by which their runs are named")
    return rows


def write_sweep(
    folder: Path, cache: FeatureCache, found: Grid, config: TrainConfig, folds: Sequence[str]
) -> str:
    """Writes `sweep.csv`, `.md`, `.json` and `.png`, and gives the Markdown to show."""
    if not found.rows:
        return f"no λ has all its runs; see the failures ({folder})"
    metric = metric_name(cache.multi_label)
    rows = sweep_table(found, metric)
    text = f"{markdown(rows)}\n{about(cache, config, folds)}\n"
    write_csv(folder / "sweep.csv", rows, cache.random_weights)
    write_text(folder / "sweep.md", text)
    values = [
        {
            "penalty": row.config.attention_penalty,
            "values": row.values,
            "entropy": row.entropy,
            "spread": row.spread,
        }
        for row in found.rows
    ]
    write_text(folder / "sweep.json", json.dumps(values, indent=1) + "\n")
    title = f"{cache.path.stem}: what the attention penalty λ does ({config.penalty_form} form)"
    title = titled(title, cache.random_weights)
    charts.plot_sweep(folder / "sweep.png", found, metric, title)
    return f"{text}\n{folder / 'sweep.png'}"


def sweep_table(found: Grid, metric: str) -> list[list[str]]:
    """The sweep as text: a header, and a row for each λ."""
    header = ["λ", f"{metric} %", "entropy, nats", "locations with 90 % of it, %", "seeds"]
    rows = [
        [
            f"{row.config.attention_penalty:g}",
            mean_sd(percent(row.values)),
            mean_sd(row.entropy),
            mean_sd(percent(row.spread)),
            str(len(row.values)),
        ]
        for row in found.rows
    ]
    return [header, *rows]
