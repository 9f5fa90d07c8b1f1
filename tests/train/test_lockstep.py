"""Runs trained as a stack: each comes out as it does alone, whatever the others do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnact.cache.features import FeatureCache
from attnact.errors import RunError, UnsupportedError
from attnact.model.checkpoint import load_checkpoint, load_state
from attnact.train import epoch as passes
from attnact.train import lockstep, loop
from attnact.train.config import TrainConfig
from attnact.train.feed.places import FeatureStore
from attnact.train.feed.store import open_store, videos_in
from attnact.train.lockstep import stacks
from attnact.train.loop import train, train_together
from attnact.train.runs import Run, create_run, only_here, open_run
from attnact.train.scoring.predictions import read_attention, read_predictions
from tests.made_runs import SMALL

PENALTIES = [0.0, 1.0, 10.0]
CHOICES: dict[str, Any] = {
    **SMALL,
    "batch_size": 4,
    "clips_per_video": 1,
    "test_stride": 10,
    "validation": 0.3,
}
SHORT = {"validation": 0.0, "epochs": 1}
OTHERS: dict[str, dict[str, Any]] = {
    "location": {},
    "context": {"attention": "context", "lstm_layers": 1, **SHORT},
    "released": {
        "recipe": "released",
        "dropout_form": "released",
        "optimizer": "released",
        "initial_weights": "released",
        "batch_loss": "sum",
        "penalty_form": "mean",
        "clips_per_video": 2,
    },
}


@pytest.fixture(scope="module")
def cache(make_cache, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Nine videos, as few as have two groups to train on."""
    made: FeatureCache = make_cache(tmp_path_factory.mktemp("cache") / "x.h5", videos=9)
    return made


def begin(folder: Path, cache: FeatureCache, **choices: Any) -> list[Run]:
    """A run for each λ."""
    return [
        create_run(
            folder / f"{penalty:g}",
            TrainConfig(**{**CHOICES, **choices, "attention_penalty": penalty}),
            cache,
        )
        for penalty in PENALTIES
    ]


def features(cache: FeatureCache) -> FeatureStore:
    return open_store(cache, videos_in(cache, ["1"]), "host", torch.device("cpu"))


def together(runs: list[Run], cache: FeatureCache) -> dict[Run, Any]:
    return dict(train_together(runs, cache, features(cache)))


@pytest.fixture(scope="module")
def alone(
    cache: FeatureCache, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[Run]]:
    """The runs trained one after the other; each choice once."""
    known: dict[str, list[Run]] = {}

    def make(**choices: Any) -> list[Run]:
        key = json.dumps(choices)
        if key not in known:
            known[key] = begin(tmp_path_factory.mktemp("alone"), cache, **choices)
            for run in known[key]:
                train(run, cache, features(cache))
        return known[key]

    return make


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


# The spread counts locations: where two of a frame's are next to equal, it may jump by one.
ONE_LOCATION = 1 / (30 * 49)


def assert_same(
    run: Run,
    other: Run,
    cache: FeatureCache,
    tolerance: float = 1e-4,
    of_weights: float = 1e-3,
) -> None:
    """All that two runs leave, but for times, is the same within the tolerances."""
    names = {file.name for file in run.folder.iterdir()}
    assert names == {file.name for file in other.folder.iterdir()}
    for ours, theirs in zip(lines(run), lines(other), strict=True):
        del ours["seconds"], theirs["seconds"]
        assert ours.pop("phase") == theirs.pop("phase")
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance)
    close = {"rtol": tolerance, "atol": tolerance}
    assert_same_weights(run, other, of_weights)
    for read, name in ((read_predictions, "predictions"), (read_attention, "attention")):
        ours, theirs = (read(getattr(it, name), cache) for it in (run, other))
        np.testing.assert_array_equal(ours[0], theirs[0])
        if name == "predictions":
            np.testing.assert_allclose(ours[1], theirs[1], **close)
            continue
        np.testing.assert_allclose(ours[1][:, 0], theirs[1][:, 0], **close)
        apart = np.abs(ours[1][:, 1] - theirs[1][:, 1])
        assert apart.max() <= tolerance + ONE_LOCATION
        assert (apart > tolerance).sum() <= 1
    found, expected = run.summary(), other.summary()
    spreads = [it.pop("attention_spread", 0) for it in (found, expected)]
    assert spreads[0] == pytest.approx(spreads[1], abs=tolerance + ONE_LOCATION)
    for key, value in expected.items():
        close = pytest.approx(value, rel=tolerance) if isinstance(value, float) else value
        assert found.pop(key) == close, key
    assert not found


def assert_same_weights(run: Run, other: Run, tolerance: float) -> None:
    """By the norm of each: Adam makes a step of full length even of a gradient that is next to
    nothing but rounding, as that of the features' weights is at first in context attention."""
    weights, expected = (load_checkpoint(it.model).model.state_dict() for it in (run, other))
    for name, weight in expected.items():
        assert (weights[name] - weight).norm() <= tolerance * weight.norm(), name


def assert_all_same(runs: list[Run], others: list[Run], cache: FeatureCache) -> None:
    assert all(run.finished for run in runs)
    for run, other in zip(runs, others, strict=True):
        assert_same(run, other, cache)


@pytest.mark.parametrize("name", OTHERS)
def test_each_run_comes_out_as_it_does_alone(
    name: str, alone: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    runs = begin(tmp_path, cache, **OTHERS[name])
    found = together(runs, cache)
    assert found == {run: run.summary() for run in runs}
    rough = 0.15 if name == "context" else 1e-3
    for run, other in zip(runs, alone(**OTHERS[name]), strict=True):
        assert_same(run, other, cache, of_weights=rough)
    with pytest.raises(AssertionError):  # those of another λ
        assert_same_weights(runs[0], runs[2], rough)
    kept, expected = (load_state(it[2].state) for it in (runs, alone(**OTHERS[name])))
    assert runs[2].state.stat().st_size < 1.1 * alone(**OTHERS[name])[2].state.stat().st_size
    assert kept["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]


@pytest.mark.parametrize("attention", ["location", "context"])
def test_bfloat16_comes_close(
    attention: str, alone: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    choices = {"precision": "bfloat16", "attention": attention, **SHORT}
    runs = begin(tmp_path, cache, **choices)
    together(runs, cache)
    for run, other in zip(runs, alone(**choices), strict=True):
        assert_same(run, other, cache, tolerance=0.02, of_weights=0.2)


class Count:
    """Calls something, remembers how often, and may stop everything before or after a call."""

    def __init__(self, real: Callable[..., Any], nth: int = 0, when: str = "") -> None:
        self.real, self.nth, self.when, self.stacks = real, nth, when, []

    def __call__(self, given: Any, *args: Any) -> Any:
        self.stacks.append(len(given) if isinstance(given, list) else 1)
        if len(self.stacks) == self.nth and self.when == "before":
            raise KeyboardInterrupt
        found = self.real(given, *args)
        if len(self.stacks) == self.nth:
            raise KeyboardInterrupt
        return found


def interrupted(runs: list[Run], cache: FeatureCache, name: str, nth: int, when: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, name, Count(getattr(loop, name), nth, when))
        with pytest.raises(KeyboardInterrupt):
            together(runs, cache)


INTERRUPTIONS = [
    *(("save_state", n, when) for n in (2, 7) for when in ("before", "after")),
    ("save_checkpoint", 1, "after"),
]


@pytest.mark.parametrize(("name", "nth", "when"), INTERRUPTIONS)
def test_interrupted_and_resumed_together(
    name: str, nth: int, when: str, alone: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    """Then some of them have an epoch more than others."""
    runs = begin(tmp_path, cache)
    interrupted(runs, cache, name, nth, when)
    assert not all(run.finished for run in runs)
    torch.manual_seed(99)
    together([open_run(run.folder) for run in runs if not run.finished], cache)
    assert_all_same(runs, alone(), cache)


def test_interrupted_together_and_resumed_alone(
    alone: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    runs = begin(tmp_path, cache)
    interrupted(runs, cache, "save_state", 5, "after")
    for run in runs:
        train(open_run(run.folder), cache, features(cache))
    assert_all_same(runs, alone(), cache)


def test_interrupted_alone_and_resumed_together(
    alone: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    runs = begin(tmp_path, cache)
    interrupted(runs[1:2], cache, "save_state", 2, "after")  # the others are not begun yet
    together(runs, cache)
    assert_all_same(runs, alone(), cache)


def test_a_run_that_stops_earlier_leaves_the_stack(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the final phase: after as many epochs as it takes to cost as little."""
    chosen = {0.0: 1e9, 1.0: 0.0, 10.0: 1e9}  # what the best epoch cost
    counted = Count(lockstep.train_epoch)
    monkeypatch.setattr(lockstep, "train_epoch", counted)

    def choose(config: TrainConfig, line: dict[str, Any]) -> float:
        best = line["phase"] == "selection"
        return chosen[config.attention_penalty] if best else line["loss"]

    monkeypatch.setattr(loop, "cost", choose)
    runs, others = begin(tmp_path / "together", cache), begin(tmp_path / "alone", cache)
    together(runs, cache)
    assert counted.stacks == [3, 3, 3, 1]
    assert [run.summary()["epochs"] for run in runs] == [1, 2, 1]
    for run in others:
        train(run, cache, features(cache))
    assert_all_same(runs, others, cache)


def test_a_run_without_numbers_leaves_the_others(
    alone: Any, cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = passes.clip_loss
    calls = 0

    def spoilt(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        found = real(*args)
        return (
            found._replace(cross_entropy=found.cross_entropy * torch.nan) if calls == 2 else found
        )

    monkeypatch.setattr(passes, "clip_loss", spoilt)
    runs = begin(tmp_path, cache)
    found = together(runs, cache)
    assert isinstance(found[runs[1]], RunError)
    assert "the loss is not a number any more" in str(found[runs[1]])
    assert not runs[1].finished
    assert_all_same(runs[::2], alone()[::2], cache)


def test_a_run_that_failed_is_let_go_of_at_once(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hears of it may train it again, though the others go on."""

    def fail(passes: Any, advance: Any) -> Any:
        raise RunError("no more")

    monkeypatch.setattr(lockstep, "train_epoch", fail)
    for run, outcome in train_together(begin(tmp_path, cache), cache, features(cache)):
        assert str(outcome) == "no more"
        with only_here(run):
            pass


def test_a_run_that_cannot_begin_leaves_the_others(
    alone: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    runs = begin(tmp_path, cache)
    runs[0].state.write_bytes(b"no state")
    found = together(runs, cache)
    assert "damaged" in str(found[runs[0]])
    assert_all_same(runs[1:], alone()[1:], cache)


def test_what_the_device_refuses_is_not_tried_one_by_one(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = []

    def refuse(passes: Any, advance: Any) -> Any:
        stacks.append(len(passes))
        raise UnsupportedError("cuda: what it does cannot be recorded")

    monkeypatch.setattr(lockstep, "train_epoch", refuse)
    found = together(begin(tmp_path, cache), cache)
    assert [str(error) for error in found.values()] == 3 * ["cuda: what it does cannot be recorded"]
    assert stacks == [3]


def test_where_a_stack_does_not_fit_they_train_one_by_one(
    alone: Any, cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, which they then begin anew."""
    real, calls = passes.StackedLSTMs.forward, 0

    def too_much(stacked: Any, X: Any, mask: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 3 and calls % 2:
            raise torch.OutOfMemoryError("no memory")
        return real(stacked, X, mask)

    monkeypatch.setattr(passes.StackedLSTMs, "forward", too_much)
    runs = begin(tmp_path, cache)
    together(runs, cache)
    assert calls > 3
    assert_all_same(runs, alone(), cache)


def test_a_lone_run_tells_what_it_failed_on(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: Any) -> Any:
        raise OSError("gone")

    monkeypatch.setattr(passes, "batches", gone)
    with pytest.raises(OSError, match="gone"):
        train(begin(tmp_path, cache)[0], cache, features(cache))


@pytest.mark.parametrize(
    ("choices", "on_gpu"),
    [({}, True), ({"attention": "context"}, True), ({"model": "average"}, False)],
)
def test_which_runs_are_stacked(choices: dict[str, Any], on_gpu: bool) -> None:
    config = TrainConfig(**choices)
    assert not stacks(config, torch.device("cpu"))
    assert stacks(config, torch.device("cuda")) is on_gpu
