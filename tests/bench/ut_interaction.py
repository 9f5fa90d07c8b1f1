"""The README's figures on the segmented clips of UT-Interaction, set 1.

    python -m tests.bench.ut_interaction list VIDEOS > ut_interaction.csv
    python -m tests.bench.ut_interaction baseline features/ut_interaction.h5

`list` writes the CSV for `attnact features folder`: 60 clips, 6 actions, 10 sequences, in five
folds of two sequences. `baseline` is logistic regression on the features of a video averaged over
its frames and locations, tested on the same folds, without attention and without time.
"""

import csv
import sys
from pathlib import Path

import click
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from attnact.cache.features import LOCATIONS, FeatureCache
from attnact.vocabulary import Split

ACTIONS = ("hand shaking", "hugging", "kicking", "pointing", "punching", "pushing")
FOLDS = ((1, 2), (3, 4), (5, 7), (6, 8), (9, 10))  # 6 and 8 share actors, so they stay together


@click.group()
def main() -> None:
    """Figures on UT-Interaction."""


@main.command("list")
@click.argument("videos", type=click.Path(exists=True, file_okay=False, path_type=Path))
def list_videos(videos: Path) -> None:
    """Write the list of the clips, named <n>_<sequence>_<action>.avi, to stdout."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "label", "group", *(f"{i}" for i in range(1, 6))])
    for file in sorted(videos.resolve().glob("*.avi")):
        _, sequence, action = map(int, file.stem.split("_"))
        group = "6 and 8" if sequence in (6, 8) else str(sequence)
        sides = ["test" if sequence in fold else "train" for fold in FOLDS]
        writer.writerow([file, ACTIONS[action], group, *sides])


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
def baseline(path: Path) -> None:
    """Logistic regression on averaged features; its C is chosen on the training videos."""
    cache = FeatureCache(path)
    means = [
        cache.read(int(first), int(count)).reshape(-1, 1024).mean(0, dtype=np.float64)
        for first, count in zip(cache.first_frames, cache.frame_counts, strict=True)
    ]
    x, y, groups = np.array(means), cache.labels, np.array(cache.groups)
    right = 0
    for fold, sides in cache.folds.items():
        train, test = sides == Split.TRAIN, sides == Split.TEST
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        grid = {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]}
        search = GridSearchCV(model, grid, cv=GroupKFold(4))
        search.fit(x[train], y[train], groups=groups[train])
        hits = search.predict(x[test]) == y[test]
        right += int(hits.sum())
        print(f"fold {fold}: {hits.mean():.3f} of {test.sum()} videos, {search.best_params_}")
    print(f"all folds: {right / len(y):.4f} ({right} of {len(y)}; {LOCATIONS} locations averaged)")


if __name__ == "__main__":
    main()
