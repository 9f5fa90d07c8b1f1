"""What a person opens: tables with the right numbers, and the pictures beside them."""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from attnact.errors import RunError
from attnact.features import FeatureCache
from attnact.train.config import TrainConfig
from attnact.train.evaluate import VideoScores, average_precisions
from attnact.train.loop import train
from attnact.train.report import (
    evaluate,
    markdown,
    mean_sd,
    sweep_table,
    write_breakdown,
    write_sweep,
)
from attnact.train.runs import create_run
from attnact.train.store import open_store, videos_in
from attnact.train.sweep import Sweep, SweepRow

FOUND = Sweep(
    rows=[
        SweepRow(0, [0.5, 0.75], [1.0, 2.0], [0.1, 0.3]),
        SweepRow(0.5, [1 / 3], [3.5], [0.9]),
    ],
    failures=[(Path("x"), "gone")],
)
TABLE = [
    ["λ", "accuracy %", "entropy, nats", "locations with 90 % of it, %", "seeds"],
    ["0", "62.50 ± 17.68", "1.50 ± 0.71", "20.00 ± 14.14", "2"],
    ["0.5", "33.33", "3.50", "90.00", "1"],
]


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def is_picture(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100
        assert len(np.unique(np.asarray(picture.convert("L")))) > 2


@given(st.lists(st.floats(0, 100), min_size=2, max_size=9))
def test_mean_sd(values: list[float]) -> None:
    mean, _, sd = mean_sd(values).partition(" ± ")
    assert float(mean) == pytest.approx(statistics.fmean(values), abs=0.00501)
    assert float(sd) == pytest.approx(statistics.stdev(values), abs=0.00501)


def test_one_value_has_no_spread() -> None:
    assert mean_sd([71.234]) == "71.23"


def test_sweep_table() -> None:
    assert sweep_table(FOUND, "accuracy") == TABLE


def test_markdown_columns() -> None:
    lines = markdown(TABLE).splitlines()
    assert len(set(map(len, lines))) == 1  # also reads well as text
    assert set(lines[1]) == {"|", "-"}
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [cells[0], *cells[2:]] == TABLE
    assert len(cells[1]) == len(TABLE[0])


def test_write_sweep(cache: FeatureCache, tmp_path: Path) -> None:
    config = TrainConfig(penalty_form="mean", recipe="released")
    text = write_sweep(tmp_path, cache, FOUND, config, ["1", "2"])
    assert {file.name for file in tmp_path.iterdir()} == {
        "sweep.csv",
        "sweep.md",
        "sweep.json",
        "sweep.png",
    }
    assert text == f"{(tmp_path / 'sweep.md').read_text()}\n{tmp_path / 'sweep.png'}"
    # Every report states the form of the penalty, and what the features are of.
    for word in ("small, folds 1, 2", "released", "penalty form mean", "random (seed 0)"):
        assert word in text
    assert read_csv(tmp_path / "sweep.csv") == TABLE
    values = json.loads((tmp_path / "sweep.json").read_text())
    assert values[0] == {
        "penalty": 0,
        "values": [0.5, 0.75],
        "entropy": [1.0, 2.0],
        "spread": [0.1, 0.3],
    }
    is_picture(tmp_path / "sweep.png")


def test_sweep_without_a_whole_seed(cache: FeatureCache, tmp_path: Path) -> None:
    text = write_sweep(tmp_path, cache, Sweep([], FOUND.failures), TrainConfig(), ["1"])
    assert "see the failures" in text
    assert list(tmp_path.iterdir()) == []


def test_confusion(cache: FeatureCache, tmp_path: Path) -> None:
    """Videos 0 to 4 are of the classes 0, 1, 2, 0, 1; all are taken for class 1 but the last."""
    scores = np.eye(3)[[1, 1, 1, 1, 2]]
    write_breakdown(tmp_path, cache, VideoScores(np.arange(5), scores, 0, 0, 0))
    assert read_csv(tmp_path / "confusion.csv") == [
        ["true \\ predicted", "dive", "jump", "run"],
        ["dive", "0", "2", "0"],
        ["jump", "0", "1", "1"],
        ["run", "0", "1", "0"],
    ]
    is_picture(tmp_path / "confusion.png")


def test_average_precision(multi_label_cache: FeatureCache, tmp_path: Path) -> None:
    """Of videos that never show the last class."""
    videos = np.array([0, 1, 3, 4])
    scores = np.random.default_rng(0).random((4, 3))
    write_breakdown(tmp_path, multi_label_cache, VideoScores(videos, scores, 0, 0, 0))
    header, *rows = read_csv(tmp_path / "average_precision.csv")
    assert header == ["class", "average precision"]
    expected = average_precisions(scores, multi_label_cache.labels[videos])
    assert [row[0] for row in rows] == multi_label_cache.classes
    np.testing.assert_array_equal([float(row[1]) for row in rows], expected)
    assert np.isnan(expected).tolist() == [False, False, True]
    assert [file.name for file in tmp_path.iterdir()] == ["average_precision.csv"]


def test_evaluate_gives_what_training_gave(cache: FeatureCache, tmp_path: Path) -> None:
    choices: dict[str, Any] = {"lstm_layers": 1, "epochs": 1, "train_stride": 9, "validation": 0.0}
    run = create_run(tmp_path / "run", TrainConfig(fold="1", hidden_size=4, **choices), cache)
    store = open_store(cache, videos_in(cache, ["1"]), "disk", torch.device("cpu"))
    with pytest.raises(RunError, match=r"model\.safetensors: no such file; has the run finished"):
        evaluate(run, cache, store)
    trained = train(run, cache, store)
    predictions = run.predictions.read_bytes()
    run.predictions.unlink()
    found = evaluate(run, cache, store)
    assert found.items() <= trained.items()
    assert run.predictions.read_bytes() == predictions
    assert {"confusion.csv", "confusion.png"} < {file.name for file in run.folder.iterdir()}
