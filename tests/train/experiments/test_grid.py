"""A grid of runs: every cell once, stopped and gone on, with failures, pooled over folds."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from attnact.cache.features import FeatureCache
from attnact.errors import AttnactError, CacheError, RunBusyError, RunError
from attnact.train.config import TrainConfig
from attnact.train.experiments import grid as module
from attnact.train.experiments.grid import Grid, train_grid, train_here
from attnact.train.experiments.sweep import sweep_rows
from attnact.train.experiments.table1 import NAMES, table1_rows
from attnact.train.feed.store import open_store, videos_in
from attnact.train.runs import Run, create_run
from attnact.train.scoring.predictions import write_predictions
from attnact.train.scoring.scores import VideoScores, metric
from attnact.vocabulary import Split

CONFIG = TrainConfig(
    hidden_size=4, lstm_layers=1, epochs=1, train_stride=9, test_stride=9, validation=0.3
)


CPU = torch.device("cpu")


class Trainer:
    """Stands in for training: invents scores from the run's choices, and remembers each call."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.groups: list[int] = []
        self.fails: dict[str, BaseException] = {}

    def __call__(self, runs: list[Run], cache: FeatureCache, store: Any, events: bool) -> Any:
        self.groups.append(len(runs))
        for run in runs:
            self.trained.append(run.folder.name)
            error = self.fails.get(run.folder.name)
            if isinstance(error, KeyboardInterrupt):
                raise error
            yield run, error or self._train(run, cache)

    def _train(self, run: Run, cache: FeatureCache) -> dict[str, Any]:
        config = run.config
        videos = np.flatnonzero(cache.folds[config.fold] == Split.TEST)
        key = [config.seed, int(config.attention_penalty), len(videos), int(videos[0])]
        scores = np.random.default_rng(key).random((len(videos), 3))
        write_predictions(run.predictions, cache, VideoScores(videos, scores, 0, None))
        run.finish(
            {
                "metric": "accuracy",
                "value": metric(scores, cache.labels[videos]),
                "videos": len(videos),
                "attention_entropy": float(scores.sum()),
                "attention_spread": float(scores.min()),
            }
        )
        return run.summary()


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(module, "train_together", trainer)
    return trainer


def go(
    folder: Path,
    cache: FeatureCache,
    penalties: Any,
    seeds: Any,
    folds: Any,
    device: str = "cpu",
    **choices: Any,
) -> tuple[Grid, list[str]]:
    told: list[str] = []
    store: Any = SimpleNamespace(device=torch.device(device))
    rows = sweep_rows(replace(CONFIG, **choices), penalties)
    train = partial(train_here, cache, lambda: store, store.device, False)
    with patch.object(module, "note", told.append):
        return train_grid(folder, cache, train, rows, seeds, folds), told


def results(found: Grid) -> list[Any]:
    """All of the rows but where their runs lie."""
    return [(row.name, row.config, row.values, row.entropy, row.spread) for row in found.rows]


def penalties_of(found: Grid) -> list[float]:
    return [row.config.attention_penalty for row in found.rows]


def scores_of(run: Path, cache: FeatureCache) -> tuple[list[int], np.ndarray]:
    rows = [line.split(",") for line in (run / "predictions.csv").read_text().splitlines()[1:]]
    videos = [cache.paths.index(row[0]) for row in rows]
    return videos, np.array([row[3:] for row in rows], float)


def test_every_cell(trainer: Trainer, cache: FeatureCache, tmp_path: Path) -> None:
    found, told = go(tmp_path, cache, [0, 0.5, 10], [0, 3], ["1", "2"])
    names = [f"lambda{p}-fold{f}-seed{s}" for p in ("0", "0.5", "10") for s in "03" for f in "12"]
    assert trainer.trained == names
    assert [line.split(":")[0] for line in told] == [f"{i}/12 {n}" for i, n in enumerate(names, 1)]
    assert penalties_of(found) == [0, 0.5, 10]
    assert all(len(row.values) == len(row.entropy) == len(row.spread) == 2 for row in found.rows)
    assert found.failures == []


def test_a_gpu_trains_the_penalties_of_a_seed_and_fold_together(
    trainer: Trainer, cache: FeatureCache, tmp_path: Path
) -> None:
    """Whatever of them is left; and with the same result."""
    trainer.fails["lambda1-fold2-seed3"] = RunError("gone")
    found, told = go(tmp_path / "a", cache, [0, 1, 10], [0, 3], ["1", "2"], device="cuda")
    assert trainer.groups == [3, 3, 3, 3]
    names = [f"lambda{p}-fold{f}-seed{s}" for s in "03" for f in "12" for p in ("0", "1", "10")]
    assert trainer.trained == names
    assert [line.split(":")[0] for line in told] == [f"{i}/12 {n}" for i, n in enumerate(names, 1)]
    assert [path.name for path, _ in found.failures] == ["lambda1-fold2-seed3"]
    trainer.groups.clear()
    again, _ = go(tmp_path / "a", cache, [0, 1, 10, 20], [0, 3], ["1", "2"], device="cuda")
    assert trainer.groups == [3, 2]  # what is finished is in no group
    on_cpu, _ = go(tmp_path / "b", cache, [0, 1, 10, 20], [0, 3], ["1", "2"])
    assert results(again) == results(on_cpu)


def test_many_penalties_make_several_groups(
    trainer: Trainer, cache: FeatureCache, tmp_path: Path
) -> None:
    found, _ = go(tmp_path, cache, range(9), [0], ["1"], device="cuda")
    assert trainer.groups == [4, 4, 1]
    assert penalties_of(found) == list(range(9))


def test_a_gpu_trains_seeds_of_a_fold_together(
    trainer: Trainer, cache: FeatureCache, tmp_path: Path
) -> None:
    """Where there are too many, a seed is not taken apart."""
    found, _ = go(tmp_path / "a", cache, [1], range(3), ["1", "2"], device="cuda")
    assert trainer.groups == [3, 3]
    assert trainer.trained == [f"lambda1-fold{f}-seed{s}" for f in "12" for s in "012"]
    on_cpu, _ = go(tmp_path / "b", cache, [1], range(3), ["1", "2"])
    assert results(found) == results(on_cpu)
    trainer.groups.clear()
    trainer.trained.clear()
    go(tmp_path / "c", cache, [0, 1], range(3), ["1"], device="cuda")
    assert trainer.groups == [4, 2]
    assert trainer.trained == [f"lambda{p}-fold1-seed{s}" for s in "012" for p in "01"]
    trainer.groups.clear()
    go(tmp_path / "d", cache, range(6), range(2), ["1"], device="cuda")
    assert trainer.groups == [4, 4, 2, 2]


def test_models_that_are_not_of_one_shape_train_alone(
    trainer: Trainer, cache: FeatureCache, tmp_path: Path
) -> None:
    store: Any = SimpleNamespace(device=torch.device("cuda"))
    train = partial(train_here, cache, lambda: store, store.device, False)
    found = train_grid(tmp_path, cache, train, table1_rows(CONFIG), [0, 1], ["1"])
    assert [row.name for row in found.rows] == list(NAMES)
    assert trainer.groups == [1] * 6 + [3, 3]


def test_disjoint_folds_are_pooled(
    trainer: Trainer, multi_label_cache: FeatureCache, tmp_path: Path
) -> None:
    """Mean average precision over all test videos is not the mean of the folds'."""
    cache = multi_label_cache
    found, _ = go(tmp_path, cache, [1], [0, 1], ["1", "2", "4"])
    for seed, value in enumerate(found.rows[0].values):
        of_folds = [scores_of(tmp_path / f"lambda1-fold{f}-seed{seed}", cache) for f in "124"]
        videos = [video for videos, _ in of_folds for video in videos]
        assert sorted(videos) == [0, 1, 2, 3, 4, 5, 9, 10, 11]
        scores = np.concatenate([scores for _, scores in of_folds])
        assert value == metric(scores, cache.labels[videos])
        mean = np.mean([metric(scores, cache.labels[videos]) for videos, scores in of_folds])
        assert value != pytest.approx(mean)


def test_overlapping_folds_are_averaged(
    trainer: Trainer, multi_label_cache: FeatureCache, tmp_path: Path
) -> None:
    """The test videos of "wide" are those of "3" and "4"."""
    cache = multi_label_cache
    found, _ = go(tmp_path, cache, [1], [0], ["3", "wide"])
    of_folds = [scores_of(tmp_path / f"lambda1-fold{f}-seed0", cache) for f in ("3", "wide")]
    values = [metric(scores, cache.labels[videos]) for videos, scores in of_folds]
    assert found.rows[0].values == [pytest.approx(sum(values) / 2)]
    assert found.rows[0].entropy == [pytest.approx(sum(s.sum() for _, s in of_folds) / 2)]
    assert found.rows[0].spread == [pytest.approx(sum(s.min() for _, s in of_folds) / 2)]


def test_goes_on_where_it_stood(trainer: Trainer, cache: FeatureCache, tmp_path: Path) -> None:
    trainer.fails["lambda10-fold1-seed0"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, cache, [0, 10], [0, 1], ["1"])
    assert len(trainer.trained) == 3
    trainer.trained.clear()
    trainer.fails.clear()
    found, told = go(tmp_path, cache, [0, 10], [0, 1], ["1"])
    assert trainer.trained == ["lambda10-fold1-seed0", "lambda10-fold1-seed1"]
    assert len(told) == 4
    once = go(tmp_path / "once", cache, [0, 10], [0, 1], ["1"])[0]
    assert results(found) == results(once)


def test_more_cells_keep_those_that_are_there(
    trainer: Trainer, cache: FeatureCache, tmp_path: Path
) -> None:
    go(tmp_path, cache, [0], [0], ["1"])
    found, _ = go(tmp_path, cache, [1, 0], [0, 1], ["1"])
    assert len(trainer.trained) == 4
    assert penalties_of(found) == [1, 0]


@pytest.mark.parametrize("error", [CacheError("gone"), OSError("gone"), RuntimeError("gone")])
def test_a_failing_run_leaves_the_others(
    error: Exception, trainer: Trainer, cache: FeatureCache, tmp_path: Path
) -> None:
    """A seed that lacks a fold has no part in the row; a row without seeds is not there."""
    trainer.fails = {
        "lambda0-fold2-seed0": error,
        "lambda1-fold1-seed0": error,
        "lambda1-fold2-seed1": error,
    }
    found, told = go(tmp_path, cache, [0, 1], [0, 1], ["1", "2"])
    assert len(trainer.trained) == 8
    assert {(path.name, why) for path, why in found.failures} == {
        (name, "gone") for name in trainer.fails
    }
    assert [line for line in told if "failed: gone" in line] == [told[1], told[4], told[7]]
    alone = go(tmp_path / "alone", cache, [0], [1], ["1", "2"])[0]
    assert results(found) == results(alone)


def test_a_finished_run_that_was_damaged_is_a_failure(
    trainer: Trainer, cache: FeatureCache, tmp_path: Path
) -> None:
    go(tmp_path, cache, [0, 1], [0], ["1"])
    (tmp_path / "lambda0-fold1-seed0/predictions.csv").write_text("")
    found, _ = go(tmp_path, cache, [0, 1], [0], ["1"])
    assert [path.name for path, _ in found.failures] == ["lambda0-fold1-seed0"]
    assert "cannot be read" in found.failures[0][1]
    assert penalties_of(found) == [1]


def test_what_is_trained_needs_no_features(trainer, cache, tmp_path) -> None:
    """The table alone is made again."""
    first, _ = go(tmp_path, cache, [0, 1], [0], ["1"])
    train = partial(train_here, cache, pytest.fail, CPU, False)
    rows = sweep_rows(CONFIG, [0, 1])
    again = train_grid(tmp_path, cache, train, rows, [0], ["1"])
    assert results(again) == results(first)


def test_features_that_cannot_be_opened_leave_no_run(trainer, cache, tmp_path) -> None:
    def fail() -> None:
        raise CacheError("a shard is missing")

    train = partial(train_here, cache, fail, CPU, False)
    with pytest.raises(CacheError, match="a shard is missing"):
        train_grid(tmp_path, cache, train, sweep_rows(CONFIG, [0]), [0], ["1"])
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_another_process_has_just_begun(trainer, cache, tmp_path, monkeypatch) -> None:
    """Between the look for it and its beginning."""

    def sides(cache: FeatureCache, config: TrainConfig) -> None:
        create_run(tmp_path / "lambda0-fold1-seed0", config, cache)

    monkeypatch.setattr(module, "sides_of", sides)
    found, _ = go(tmp_path, cache, [0], [0], ["1"])
    assert (found.failures, penalties_of(found)) == ([], [0])


def test_other_choices_are_refused(trainer: Trainer, cache: FeatureCache, tmp_path: Path) -> None:
    go(tmp_path, cache, [0], [0], ["1"])
    config = (tmp_path / "lambda0-fold1-seed0/config.json").read_bytes()
    told = "lambda0-fold1-seed0: made with epochs 1, now asked for epochs 2; choose as before"
    with pytest.raises(AttnactError, match=told):
        go(tmp_path, cache, [0, 1], [0], ["1"], epochs=2)
    rows = sweep_rows(replace(CONFIG, epochs=2), [0])
    train = partial(train_here, cache, pytest.fail, CPU, False)  # the features may be large
    with pytest.raises(AttnactError, match=told):
        train_grid(tmp_path, cache, train, rows, [0], ["1"])
    assert trainer.trained == ["lambda0-fold1-seed0"]  # of a table of both nothing could be told
    assert (tmp_path / "lambda0-fold1-seed0/config.json").read_bytes() == config


@pytest.mark.parametrize(
    ("penalties", "seeds", "name"),
    [
        ([0, -1], [0], "attention_penalty"),
        ([0], [0, -1], "seed"),
        ([0], [0, 1 << 32], "seed"),
    ],
)
def test_out_of_range_trains_nothing(
    penalties: Any, seeds: Any, name: str, trainer: Trainer, cache: FeatureCache, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        go(tmp_path, cache, penalties, seeds, ["1"])
    assert trainer.trained == list(tmp_path.iterdir()) == []


def test_another_cache_is_refused(trainer: Trainer, make_cache, tmp_path: Path) -> None:
    go(tmp_path, make_cache(tmp_path / "a.h5", videos=12), [0], [0], ["1"])
    with pytest.raises(AttnactError, match="made with another cache; use another --name"):
        go(tmp_path, make_cache(tmp_path / "b.h5", videos=9), [0], [0], ["1"])


def test_runs_that_are_not_asked_for_are_told(
    trainer: Trainer, cache: FeatureCache, tmp_path: Path
) -> None:
    """For what is written then is of fewer runs than before."""
    _, told = go(tmp_path, cache, [0, 1], [0, 1], ["1", "2"])
    assert "not asked for" not in told[-1]
    _, told = go(tmp_path, cache, [0, 1], [0], ["1"])
    assert told[-1] == f"not asked for, and not in what is written: 6 of the runs in {tmp_path}"


def test_how_it_looked_is_over_all_test_videos(
    trainer: Trainer, cache: FeatureCache, tmp_path: Path
) -> None:
    """Of disjoint folds, of three and of six videos; of others the mean over the folds."""
    for folds, weights in ((["1", "wide"], [3, 6]), (["4", "wide"], [1, 1])):
        found, _ = go(tmp_path, cache, [0], [0], folds)
        summaries = [run.summary() for run in found.rows[0].runs[0]]
        for name, values in (("entropy", found.rows[0].entropy), ("spread", found.rows[0].spread)):
            each = [summary[f"attention_{name}"] for summary in summaries]
            assert values == pytest.approx([np.average(each, weights=weights)])


def test_with_real_training(cache: FeatureCache, tmp_path: Path) -> None:
    """λ, seed and fold reach the runs, and the store serves all the folds."""
    store = open_store(cache, videos_in(cache, ["1", "2"]), "host", torch.device("cpu"))
    rows = sweep_rows(CONFIG, [0, 1])
    train = partial(train_here, cache, lambda: store, CPU, False)
    found = train_grid(tmp_path, cache, train, rows, [0], ["1", "2"])
    assert found.failures == []
    assert [len(row.values) for row in found.rows] == [1, 1]
    for penalty, row in zip([0, 1], found.rows, strict=True):
        folders = [tmp_path / f"lambda{penalty}-fold{fold}-seed0" for fold in "12"]
        runs = [module.open_run(folder) for folder in folders]
        assert [run.config for run in runs] == [
            replace(CONFIG, attention_penalty=penalty, fold=fold) for fold in "12"
        ]
        # The test sides are of three videos each, so the pooled accuracy is the mean of the two.
        assert row.values[0] == pytest.approx(np.mean([run.summary()["value"] for run in runs]))


def test_runs_of_another_process_are_waited_for(trainer, cache, tmp_path, monkeypatch):
    """Its own runs come first; then it looks again until the other process is done or dead."""
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", 0)
    trainer.fails["lambda0-fold1-seed0"] = RunBusyError("another process trains this run")
    looks = []

    def then_free(runs: list[Run], *others: Any) -> Any:
        looks.append(*(run.folder.name for run in runs))
        if len(looks) == 4:
            trainer.fails.clear()
        return trainer(runs, *others)

    monkeypatch.setattr(module, "train_together", then_free)
    found, _ = go(tmp_path, cache, [0, 1], [0], ["1"])
    assert looks == ["lambda0-fold1-seed0", "lambda1-fold1-seed0", *["lambda0-fold1-seed0"] * 2]
    assert [row.name for row in found.rows] == ["lambda0", "lambda1"]
    assert found.failures == []
