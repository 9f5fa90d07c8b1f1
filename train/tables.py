"""Tables for people: mean ± sd, Markdown that also reads well as text, and what a table is of."""

from collections.abc import Sequence
from dataclasses import fields

from attnact.features import FeatureCache
from attnact.train.config import TrainConfig, resolve


def mean_sd(values: Sequence[float]) -> str:
    """`71.23 ± 0.80`; a single value has no spread to show, and none is a blank."""
    if not values:
        return ""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.2f}"
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return f"{mean:.2f} ± {variance**0.5:.2f}"


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


def about(cache: FeatureCache, config: TrainConfig, folds: Sequence[str]) -> str:
    """What a table is of, in a sentence: data, features, recipe, and what differs from it."""
    choices = {"recipe": config.recipe, "fold": config.fold}
    usual = resolve(choices, cache)
    skipped = ("fold", "seed", "model", "attention_penalty")
    other = [
        f"{field.name} {getattr(config, field.name)}"
        for field in fields(config)
        if field.name not in skipped and getattr(config, field.name) != getattr(usual, field.name)
    ]
    return (
        f"{cache.path.stem}, fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}; backbone "
        f"{cache.provenance['backbone']}, weights {cache.provenance['weights']}; recipe "
        f"{config.recipe}{' but ' if other else ''}{', '.join(other)}; "
        f"penalty form {config.penalty_form}; mean ± sd over the seeds."
    )
