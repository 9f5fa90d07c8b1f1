"""What a run leaves of its test videos: CSV files that come back as they were, or are refused."""

import csv
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attnact.cache.features import FeatureCache
from attnact.errors import RunError
from attnact.train.scoring.predictions import (
    read_attention,
    read_predictions,
    write_attention,
    write_csv,
    write_predictions,
)
from attnact.train.scoring.scores import VideoScores
from tests.readback import read_csv

HARD = ["a, b.avi", 'say "it".avi', "two\nlines.avi", "c\rr.avi", "|.avi", " é'; \t.avi", "-1"]


def test_hard_names_survive(tmp_path: Path) -> None:
    cache: Any = SimpleNamespace(
        paths=HARD,
        classes=["a,b", 'the "c"', "d\ne"],
        labels=np.arange(len(HARD)) % 3,
        multi_label=False,
        path=Path("x.h5"),
        random_weights=False,
    )
    cache.true_classes = partial(FeatureCache.true_classes, cache)
    scores = np.random.default_rng(0).random((len(HARD), 3)) * 10.0 ** -np.arange(7)[:, None]
    order = np.random.default_rng(1).permutation(len(HARD))
    path = tmp_path / "predictions.csv"
    write_predictions(path, cache, VideoScores(order, scores, 0, None))
    videos, found = read_predictions(path, cache)
    assert videos.tolist() == order.tolist()
    assert np.array_equal(found, scores)


@pytest.mark.parametrize("random", [True, False])
def test_random_weights_are_told_in_the_header_alone(tmp_path: Path, random: bool) -> None:
    """Whatever reads the file finds as many columns and rows as always."""
    write_csv(tmp_path / "x.csv", [["video", "dive"], ["a.avi", 0.5]], random)
    with (tmp_path / "x.csv").open(newline="") as file:
        header, row = csv.reader(file)
    assert header == ["video (features of random weights)" if random else "video", "dive"]
    assert row == ["a.avi", "0.5"]


def test_csv_lines_are_plain(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [["a", "b, c"], [1, 0.5]], False)
    assert (tmp_path / "x.csv").read_bytes() == b'a,"b, c"\n1,0.5\n'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"video,label,prediction,dive,jump\n", "its columns are not those of"),
        (b"video,label,prediction,dive,jump,run\nother.avi,dive,dive,1,0,0\n", "other.avi"),
        (b"video,label,prediction,dive,jump,run\ndive/0.avi,dive,dive,1,0,x\n", "cannot be read"),
        (b"video,label,prediction,dive,jump,run\ndive/0.avi,dive,dive,1,0\n", "cannot be read"),
        (b"video,label,prediction,dive,jump,run\na\rb,c\n", "cannot be read"),
    ],
)
def test_other_predictions_are_refused(
    cache: FeatureCache, tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "predictions.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=why) as caught:
        read_predictions(path, cache)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_attention_file(cache: FeatureCache, tmp_path: Path) -> None:
    looks = np.random.default_rng(0).random((2, 2))
    scored = VideoScores(np.array([4, 1]), np.eye(3)[:2], 0, looks)
    write_attention(tmp_path / "attention.csv", cache, scored)
    header, *rows = read_csv(tmp_path / "attention.csv")
    assert header == ["video (features of random weights)", "entropy", "spread"]
    assert [row[0] for row in rows] == [cache.paths[video] for video in scored.videos]
    np.testing.assert_array_equal([[float(x) for x in row[1:]] for row in rows], looks)
    videos, found = read_attention(tmp_path / "attention.csv", cache)
    assert videos.tolist() == [4, 1]
    assert np.array_equal(found, looks)
