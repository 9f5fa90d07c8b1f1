"""The λ sweep: its rows, its table and its files."""

import json
from pathlib import Path

import pytest

from attnact.cache.features import FeatureCache
from attnact.train.config import TrainConfig, resolve
from attnact.train.experiments.grid import Grid
from attnact.train.experiments.rows import Row
from attnact.train.experiments.sweep import sweep_rows, sweep_table, write_sweep
from tests.readback import is_picture, read_csv

CONFIG = TrainConfig(fold="1", penalty_form="mean", recipe="released")
ROWS = sweep_rows(CONFIG, [0, 0.5])
FOUND = Grid(
    rows=[
        Row("lambda0", ROWS["lambda0"], {}, [0.5, 0.75], [1.0, 2.0], [0.1, 0.3]),
        Row("lambda0.5", ROWS["lambda0.5"], {}, [1 / 3], [3.5], [0.9]),
    ],
    failures=[(Path("x"), "gone")],
)
TABLE = [
    ["λ", "accuracy %", "entropy, nats", "locations with 90 % of it, %", "seeds"],
    ["0", "62.50 ± 17.68", "1.50 ± 0.71", "20.00 ± 14.14", "2"],
    ["0.5", "33.33", "3.50", "90.00", "1"],
]


def test_rows() -> None:
    assert [row.attention_penalty for row in ROWS.values()] == [0, 0.5]
    with pytest.raises(ValueError, match="attention_penalty"):
        sweep_rows(TrainConfig(model="average"), [0, 1])


def test_sweep_table() -> None:
    assert sweep_table(FOUND, "accuracy") == TABLE


def test_write_sweep(cache: FeatureCache, tmp_path: Path) -> None:
    text = write_sweep(tmp_path, cache, FOUND, resolve({}, cache), ["1", "2"])
    assert {file.name for file in tmp_path.iterdir()} == {
        "sweep.csv",
        "sweep.md",
        "sweep.json",
        "sweep.png",
    }
    assert text == f"{(tmp_path / 'sweep.md').read_text()}\n{tmp_path / 'sweep.png'}"
    # Every report states the form of the penalty, and what the features are of.
    for word in ("small, folds 1, 2", "penalty form sum", "random (seed 0)"):
        assert word in text
    header, *rows = read_csv(tmp_path / "sweep.csv")
    assert header == ["λ (features of random weights)", *TABLE[0][1:]]
    assert rows == TABLE[1:]
    values = json.loads((tmp_path / "sweep.json").read_text())
    assert values[0] == {
        "penalty": 0,
        "values": [0.5, 0.75],
        "entropy": [1.0, 2.0],
        "spread": [0.1, 0.3],
    }
    is_picture(tmp_path / "sweep.png")


def test_sweep_without_a_whole_seed(cache: FeatureCache, tmp_path: Path) -> None:
    text = write_sweep(tmp_path, cache, Grid([], FOUND.failures), TrainConfig(), ["1"])
    assert "see the failures" in text
    assert list(tmp_path.iterdir()) == []
