"""What a person opens after a run: the breakdown with the right numbers, and the picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnact.cache.features import FeatureCache
from attnact.errors import RunError
from attnact.train.config import TrainConfig
from attnact.train.evaluate import evaluate, write_breakdown
from attnact.train.feed.store import open_store, videos_in
from attnact.train.loop import train
from attnact.train.runs import create_run
from attnact.train.scoring.scores import VideoScores, average_precisions
from tests.readback import is_picture, read_csv


def test_confusion(cache: FeatureCache, tmp_path: Path) -> None:
    """Videos 0 to 4 are of the classes 0, 1, 2, 0, 1; all are taken for class 1 but the last."""
    scores = np.eye(3)[[1, 1, 1, 1, 2]]
    write_breakdown(tmp_path, cache, VideoScores(np.arange(5), scores, 0, None))
    assert read_csv(tmp_path / "confusion.csv") == [
        ["true \\ predicted (features of random weights)", "dive", "jump", "run"],
        ["dive", "0", "2", "0"],
        ["jump", "0", "1", "1"],
        ["run", "0", "1", "0"],
    ]
    is_picture(tmp_path / "confusion.png")


def test_average_precision(multi_label_cache: FeatureCache, tmp_path: Path) -> None:
    """Of videos that never show the last class."""
    videos = np.array([0, 1, 3, 4])
    scores = np.random.default_rng(0).random((4, 3))
    write_breakdown(tmp_path, multi_label_cache, VideoScores(videos, scores, 0, None))
    header, *rows = read_csv(tmp_path / "average_precision.csv")
    assert header == ["class (features of random weights)", "average precision"]
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
