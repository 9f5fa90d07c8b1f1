"""Tables for people: mean ± sd, Markdown that also reads well as text, and what a table is of."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from attnact.cache.features import FeatureCache
from attnact.train.config import TrainConfig, resolve
from attnact.train.experiments.rows import overlapping


def mean_sd(values: Sequence[float]) -> str:
    """`71.23 ± 0.80`; a single value has no spread to show, and none is a blank."""
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def percent(values: Sequence[float]) -> list[float]:
    """Shares as percentages."""
    return [100 * value for value in values]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown; the first row is its header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def other_choices(cache: FeatureCache, config: TrainConfig) -> list[str]:
    """The choices that are not the recipe's, but for what the rows and folds of a table are."""
    usual = resolve({"recipe": config.recipe, "fold": config.fold}, cache)
    skipped = ("fold", "seed", "model", "attention_penalty")
    return [
        field.name
        for field in fields(config)
        if field.name not in skipped and getattr(config, field.name) != getattr(usual, field.name)
    ]


def about(cache: FeatureCache, config: TrainConfig, folds: Sequence[str]) -> str:
    """What a table is of, in a sentence: data, features, recipe, and what differs from it."""
    other = [f"{name} {getattr(config, name)}" for name in other_choices(cache, config)]
    where = f"fold {folds[0]}"
    if len(folds) > 1:
        how = "the mean over them" if overlapping(cache, folds) else "their test videos together"
        where = f"folds {', '.join(folds)}, {how}"
    return (
        f"{cache.path.stem}, {where}; backbone "
        f"{cache.provenance['backbone']}, weights {cache.provenance['weights']}; recipe "
        f"{config.recipe}{' but ' if other else ''}{', '.join(other)}; "
        f"penalty form {config.penalty_form}; mean ± sd over the seeds."
    )
