"""What a run's models made of its test videos, as CSV files: written, and read again."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attnact.cache.features import FeatureCache
from attnact.cache.provenance import marked
from attnact.errors import RunError
from attnact.machine.files import write_text
from attnact.train.feed.clips import Ints
from attnact.train.scoring.scores import Floats, VideoScores, metric


@dataclass(frozen=True)
class Predictions:
    """A `predictions.csv` by itself, without its cache.

    videos: paths as the cache has them, (V,).
    labels: class indices (V,), or rows of 0 and 1 (V, N) where several classes may hold.
    scores: a probability for each class, (V, N).
    """

    classes: list[str]
    videos: list[str]
    labels: npt.NDArray[np.int64]
    scores: Floats

    @property
    def multi_label(self) -> bool:
        """Whether several classes may hold for one video."""
        return self.labels.ndim == 2

    @property
    def value(self) -> float:
        """Accuracy or mean average precision, a share."""
        return metric(self.scores, self.labels)

    def true(self, row: int) -> list[str]:
        """The true classes of a video."""
        label = self.labels[row]
        return [self.classes[n] for n in (np.flatnonzero(label) if self.multi_label else [label])]

    def right(self, row: int) -> bool:
        """Whether the highest score is that of a true class."""
        return self.classes[self.scores[row].argmax()] in self.true(row)


def write_predictions(path: Path, cache: FeatureCache, scored: VideoScores) -> None:
    """`predictions.csv`: a row a video with its path, true and predicted class, and its scores.

    Several true classes are joined by `|`; the predicted one is then the highest score.
    """
    rows: list[list[str]] = [["video", "label", "prediction", *cache.classes]]
    for video, scores in zip(scored.videos, scored.scores, strict=True):
        names = "|".join(cache.true_classes(int(video)))
        best = cache.classes[scores.argmax()]
        rows.append([cache.paths[video], names, best, *(repr(float(s)) for s in scores)])
    write_csv(path, rows, cache.random_weights)


def write_attention(path: Path, cache: FeatureCache, scored: VideoScores) -> None:
    """`attention.csv`: a row a video with the entropy and the spread of its attention maps."""
    assert scored.attention is not None
    rows = zip(scored.videos, scored.attention.tolist(), strict=True)
    lines = [[cache.paths[video], *map(repr, looks)] for video, looks in rows]
    write_csv(path, [["video", "entropy", "spread"], *lines], cache.random_weights)


def read_predictions(path: Path, cache: FeatureCache) -> tuple[Ints, Floats]:
    """The videos (positions in the cache) and scores of a `predictions.csv`.

    Raises:
        RunError: the file is missing, or is not of this cache.
    """
    return _read_table(path, cache, 3, cache.classes)


def read_attention(path: Path, cache: FeatureCache) -> tuple[Ints, Floats]:
    """The videos, and the entropy and spread of each, (V, 2), of an `attention.csv`.

    Raises:
        RunError: the file is missing, or is not of this cache.
    """
    return _read_table(path, cache, 1, ["entropy", "spread"])


def write_csv(path: Path, rows: Sequence[Sequence[object]], random_weights: bool) -> None:
    """Writes a CSV file, whole; see `marked` for its header."""

    class Lines(list[str]):
        def write(self, line: str) -> None:  # all that csv asks of a file
            self.append(line.removesuffix("\r\n") + "\n")

    lines = Lines()
    header, *others = rows
    # Quotes \r and \n only where it ends lines with both.
    csv.writer(lines).writerows([marked(header, random_weights), *others])
    write_text(path, "".join(lines))


def read_csv(path: Path) -> list[list[str]]:
    """The header and the rows of a CSV file, each of as many cells.

    Raises:
        RunError: it is no such file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, csv.Error, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise RunError(f"{path}: cannot be read (its rows differ in length)")
    return rows


def read_scores(path: Path, multi_label: bool) -> Predictions:
    """A `predictions.csv` by its header alone; see `read_predictions` for one beside its cache.

    Raises:
        RunError: it is damaged.
    """
    header, *rows = read_csv(path)
    classes = header[3:]
    try:
        scores = np.array([row[3:] for row in rows], np.float64).reshape(len(rows), len(classes))
        labels = np.zeros((len(rows), len(classes)), np.int64)
        for i, row in enumerate(rows):
            names = [row[1]] if not multi_label else row[1].split("|") if row[1] else []
            for name in names:
                labels[i, classes.index(name)] = 1
    except (IndexError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error
    if not rows or not classes or not np.isfinite(scores).all():
        raise RunError(f"{path}: holds no scores")
    videos = [row[0] for row in rows]
    return Predictions(classes, videos, labels if multi_label else labels.argmax(1), scores)


def _read_table(
    path: Path, cache: FeatureCache, first: int, names: Sequence[str]
) -> tuple[Ints, Floats]:
    """The videos, which the first column names, and the columns from `first` on, (V, names)."""
    header, *rows = read_csv(path)
    if header[first:] != names:
        raise RunError(f"{path}: its columns are not those of {cache.path}")
    position = {name: i for i, name in enumerate(cache.paths)}
    try:
        videos = [position[row[0]] for row in rows]
        values = np.array([row[first:] for row in rows], np.float64)
        return np.array(videos, np.int64), values.reshape(len(videos), len(names))
    except (IndexError, KeyError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error
