"""What a person opens after a run or a sweep: tables and pictures beside the numbers."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attnact.checkpoint import load_checkpoint
from attnact.features import FeatureCache
from attnact.files import write_text
from attnact.train import plots
from attnact.train.config import TrainConfig
from attnact.train.evaluate import (
    VideoScores,
    average_precisions,
    confusion,
    metric_name,
    write_csv,
    write_predictions,
)
from attnact.train.loop import describe_scores, score_test
from attnact.train.runs import Run
from attnact.train.store import FeatureStore
from attnact.train.sweep import Sweep


def evaluate(run: Run, cache: FeatureCache, store: FeatureStore) -> dict[str, Any]:
    """Scores the test videos with the run's model; writes the scores and their breakdown.

    Raises:
        RunError: the run has no model yet.
    """
    checkpoint = load_checkpoint(run.model, store.device)
    scored = score_test(run, cache, store, checkpoint.model)
    write_predictions(run.predictions, cache, scored)
    write_breakdown(run.folder, cache, scored)
    return describe_scores(cache, scored)


def write_breakdown(folder: Path, cache: FeatureCache, scored: VideoScores) -> None:
    """`confusion.csv` and `.png`, or `average_precision.csv` where several classes may hold."""
    labels = cache.labels[scored.videos]
    if cache.multi_label:
        values = average_precisions(scored.scores, labels)
        pairs = zip(cache.classes, values.tolist(), strict=True)
        write_csv(folder / "average_precision.csv", [["class", "average precision"], *pairs])
        return
    matrix = confusion(scored.scores, labels)
    rows = [[name, *row] for name, row in zip(cache.classes, matrix.tolist(), strict=True)]
    write_csv(folder / "confusion.csv", [["true \\ predicted", *cache.classes], *rows])
    plots.plot_confusion(folder / "confusion.png", matrix, cache.classes)


def write_sweep(
    folder: Path, cache: FeatureCache, found: Sweep, config: TrainConfig, folds: Sequence[str]
) -> str:
    """Writes `sweep.csv`, `.md`, `.json` and `.png`, and gives the Markdown to show."""
    if not found.rows:
        return f"no λ has all its runs; see the failures ({folder})"
    rows = sweep_table(found, metric_name(cache.multi_label))
    about = (
        f"{cache.path.stem}, fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}; recipe "
        f"{config.recipe}, penalty form {config.penalty_form}; backbone "
        f"{cache.provenance['backbone']}, weights {cache.provenance['weights']}"
    )
    text = f"{markdown(rows)}\n{about}; mean ± sd over the seeds.\n"
    write_csv(folder / "sweep.csv", rows)
    write_text(folder / "sweep.md", text)
    values = [asdict(row) for row in found.rows]
    write_text(folder / "sweep.json", json.dumps(values, indent=1) + "\n")
    title = f"{cache.path.stem}: what the attention penalty λ does ({config.penalty_form} form)"
    if cache.provenance["weights_are_random"] == "true":
        title += "\nfeatures of random weights"
    plots.plot_sweep(folder / "sweep.png", found, metric_name(cache.multi_label), title)
    return f"{text}\n{folder / 'sweep.png'}"


def sweep_table(found: Sweep, metric: str) -> list[list[str]]:
    """The sweep as text: a header, and a row for each λ."""
    header = ["λ", f"{metric} %", "entropy, nats", "locations with 90 % of it, %", "seeds"]
    rows = [
        [
            f"{row.penalty:g}",
            mean_sd([100 * value for value in row.values]),
            mean_sd(row.entropy),
            mean_sd([100 * value for value in row.spread]),
            str(len(row.values)),
        ]
        for row in found.rows
    ]
    return [header, *rows]


def mean_sd(values: Sequence[float]) -> str:
    """`71.2 ± 0.8`; a single value has no spread to show."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.2f}"
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return f"{mean:.2f} ± {variance**0.5:.2f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown that also reads well as text."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
