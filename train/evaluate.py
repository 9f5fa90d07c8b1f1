"""What a person opens after a run: its scores, and where they go wrong."""

from pathlib import Path
from typing import Any

from attnact.cache.features import FeatureCache
from attnact.cache.provenance import titled
from attnact.machine import ranks
from attnact.model.checkpoint import load_checkpoint
from attnact.train.feed.places import FeatureStore
from attnact.train.loop import describe_scores, score_test
from attnact.train.pictures import plots
from attnact.train.runs import Run
from attnact.train.scoring.predictions import write_csv, write_predictions
from attnact.train.scoring.scores import VideoScores, average_precisions, confusion


def evaluate(run: Run, cache: FeatureCache, store: FeatureStore) -> dict[str, Any]:
    """Scores the test videos with the run's model; writes the scores and their breakdown.

    Raises:
        RunError: the run has no model yet.
    """
    checkpoint = load_checkpoint(run.model, store.device)
    scored = score_test(run, cache, store, checkpoint.model)
    result = describe_scores(cache, scored)
    if ranks.rank() == 0:
        write_predictions(run.predictions, cache, scored)
        write_breakdown(run.folder, cache, scored)
        if not run.finished and not run.state.exists():  # an imported model
            run.finish({**result, "fold": run.config.fold})
    return result


def write_breakdown(folder: Path, cache: FeatureCache, scored: VideoScores) -> None:
    """`confusion.csv` and `.png`, or `average_precision.csv` where several classes may hold."""
    labels = cache.labels[scored.videos]
    if cache.multi_label:
        values = average_precisions(scored.scores, labels)
        pairs = zip(cache.classes, values.tolist(), strict=True)
        table = [["class", "average precision"], *pairs]
        write_csv(folder / "average_precision.csv", table, cache.random_weights)
        return
    matrix = confusion(scored.scores, labels)
    rows = [[name, *row] for name, row in zip(cache.classes, matrix.tolist(), strict=True)]
    table = [["true \\ predicted", *cache.classes], *rows]
    write_csv(folder / "confusion.csv", table, cache.random_weights)
    title = titled("", cache.random_weights)
    plots.plot_confusion(folder / "confusion.png", matrix, cache.classes, title)
