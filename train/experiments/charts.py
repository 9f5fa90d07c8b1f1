"""Charts of many runs: a sweep, a Table 1, intervals side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attnact.cache.features import LOCATIONS
from attnact.train.experiments.grid import Grid
from attnact.train.pictures.plots import figure
from attnact.train.scoring.measures import Interval
from attnact.train.scoring.scores import MASS


def plot_sweep(path: Path, found: Grid, metric: str, title: str) -> None:
    """The metric against λ, and the attention's spread against λ; a dot a seed."""
    with figure(path, (10, 3.4)) as sheet:
        sheet.suptitle(title)
        panels = (
            (f"{metric} (%)", [[100 * v for v in row.values] for row in found.rows], None),
            ("entropy of the maps (nats)", [row.entropy for row in found.rows], np.log(LOCATIONS)),
            (
                "locations with 90 % of the attention (%)",
                [[100 * v for v in row.spread] for row in found.rows],
                100 * np.ceil(MASS * LOCATIONS) / LOCATIONS,
            ),
        )
        for axes, (label, values, everywhere) in zip(sheet.subplots(1, 3), panels, strict=True):
            for i, seeds in enumerate(values):
                axes.plot([i] * len(seeds), seeds, "o", color="#8fb3d9", markersize=5)
            axes.plot([np.mean(seeds) for seeds in values], "o-", color="#1f4e79")
            if everywhere is not None:
                axes.axhline(everywhere, color="gray", linestyle=":", label="looking everywhere")
                axes.legend(fontsize="small")
            axes.set_xticks(
                range(len(found.rows)), [f"{row.config.attention_penalty:g}" for row in found.rows]
            )
            axes.set_xlabel("attention penalty λ")
            axes.set_title(label, fontsize="medium")
            axes.grid(alpha=0.3)


def plot_table1(
    path: Path,
    rows: Mapping[str, Sequence[float]],
    compared: Mapping[str, Interval],
    metric: str,
    title: str,
) -> None:
    """Each row's metric, a dot a seed; beside it the differences with their intervals."""
    with figure(path, (11, 0.32 * max(len(rows), len(compared)) + 1.5)) as sheet:
        sheet.suptitle(title)
        left, right = sheet.subplots(1, 2)
        for y, values in enumerate(rows.values()):
            left.plot([100 * value for value in values], [y] * len(values), "o", color="#8fb3d9")
            left.plot(100 * np.mean(values), y, "|", color="#1f4e79", markersize=16)
        left.set_yticks(range(len(rows)), rows)
        left.set_title(f"{metric} (%), a dot a seed", fontsize="medium")
        _intervals(right, {name: it.scaled(100) for name, it in compared.items()})
        right.set_title("difference in points, 95 % interval", fontsize="medium")
        for axes in (left, right):
            axes.invert_yaxis()
            axes.grid(alpha=0.3, axis="x")


def plot_intervals(path: Path, found: Mapping[str, Interval], label: str, title: str) -> None:
    """A point and its 95 % interval for each name."""
    with figure(path, (8, 0.32 * len(found) + 1.6)) as sheet:
        sheet.suptitle(title)
        axes = sheet.subplots()
        _intervals(axes, found)
        axes.set_xlabel(f"{label}; 95 % interval")
        axes.invert_yaxis()
        axes.grid(alpha=0.3, axis="x")


def _intervals(axes: Any, found: Mapping[str, Interval]) -> None:
    for y, it in enumerate(found.values()):
        axes.plot([it.low, it.high], [y, y], color="#8fb3d9")
        axes.plot(it.value, y, "o", color="#1f4e79")
    axes.set_yticks(range(len(found)), found, fontsize=8)
    axes.axvline(0, color="gray", linestyle=":")
