"""Runs trained side by side: each comes out as it does alone, whatever the others do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attnact.cache.features import FeatureCache
from attnact.errors import RunError, UnsupportedError
from attnact.train import epoch, lanes, lockstep, loop
from attnact.train.config import TrainConfig
from attnact.train.feed.places import FeatureStore
from attnact.train.feed.store import open_store, videos_in
from attnact.train.lockstep import abreast
from attnact.train.loop import train, train_together
from attnact.train.runs import Run, create_run, only_here, open_run
from tests.made_runs import SMALL

Kinds = list[tuple[float, int]]  # the λ and the seed of each run

PENALTIES: Kinds = [(0.0, 0), (1.0, 0), (10.0, 0)]
SEEDS: Kinds = [(1.0, 0), (1.0, 1), (10.0, 0), (1.0, 4)]
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
    "bfloat16": {"precision": "bfloat16", **SHORT},
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


def begin(folder: Path, cache: FeatureCache, kinds: Kinds = PENALTIES, **choices: Any) -> list[Run]:
    """A run of each kind."""
    return [
        create_run(
            folder / f"{penalty:g}-{seed}",
            TrainConfig(**{**CHOICES, **choices, "attention_penalty": penalty, "seed": seed}),
            cache,
        )
        for penalty, seed in kinds
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


def assert_same(run: Run, other: Run) -> None:
    """All that two runs leave is the same, to the byte but for times."""
    names = {file.name for file in run.folder.iterdir()}
    assert names == {file.name for file in other.folder.iterdir()}
    for ours, theirs in zip(lines(run), lines(other), strict=True):
        del ours["seconds"], theirs["seconds"]
        assert ours == theirs
    for name in ("model", "predictions", "attention"):
        assert getattr(run, name).read_bytes() == getattr(other, name).read_bytes(), name
    assert run.summary() == other.summary()


def assert_all_same(runs: list[Run], others: list[Run]) -> None:
    assert all(run.finished for run in runs)
    for run, other in zip(runs, others, strict=True):
        assert_same(run, other)


kinds = pytest.mark.parametrize("kinds", [PENALTIES, SEEDS], ids=["λ", "seeds"])


@kinds
@pytest.mark.parametrize("name", OTHERS)
def test_each_run_comes_out_as_it_does_alone(
    kinds: Kinds, name: str, alone: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    runs = begin(tmp_path, cache, kinds, **OTHERS[name])
    found = together(runs, cache)
    assert found == {run: run.summary() for run in runs}
    assert_all_same(runs, alone(kinds=kinds, **OTHERS[name]))
    assert len({run.model.read_bytes() for run in runs}) == len(runs)


def test_seeds_that_have_more_clips_than_others_go_on_alone(
    make_cache: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold out other videos; a seed's last batch may come while others have whole ones."""
    cache = make_cache(tmp_path / "x.h5", videos=9, frames=lambda video: 31 + 3 * video)
    choices = {"clips_per_video": None, "train_stride": 3, "epochs": 1}
    counted = Count(epoch._learn)
    monkeypatch.setattr(epoch, "_learn", counted)
    runs, others = (begin(tmp_path / name, cache, SEEDS, **choices) for name in ("all", "alone"))
    together(runs, cache)
    of_all = counted.runs
    counted.runs = []
    for run in others:
        train(run, cache, features(cache))
    assert_all_same(runs, others)
    visited = {run: [line["clips"] for line in lines(run)] for run in runs}
    assert len({clips[0] for clips in visited.values()}) > 1
    assert len(of_all) == sum(-(-max(clips) // 4) for clips in zip(*visited.values(), strict=True))
    assert sum(of_all) < len(counted.runs)  # a batch of a seed is brought once


class Count:
    """Calls something, remembers how often, and may stop everything before or after a call."""

    def __init__(self, real: Callable[..., Any], nth: int = 0, when: str = "") -> None:
        self.real, self.nth, self.when, self.runs = real, nth, when, []

    def __call__(self, given: Any, *args: Any) -> Any:
        self.runs.append(len(given) if isinstance(given, list) else 1)
        if len(self.runs) == self.nth and self.when == "before":
            raise KeyboardInterrupt
        found = self.real(given, *args)
        if len(self.runs) == self.nth:
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


@kinds
@pytest.mark.parametrize(("name", "nth", "when"), INTERRUPTIONS)
def test_interrupted_and_resumed_together(
    name: str, nth: int, when: str, kinds: Kinds, alone: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    """Then some of them have an epoch more than others."""
    runs = begin(tmp_path, cache, kinds)
    interrupted(runs, cache, name, nth, when)
    assert not all(run.finished for run in runs)
    torch.manual_seed(99)
    together([open_run(run.folder) for run in runs if not run.finished], cache)
    assert_all_same(runs, alone(kinds=kinds))


def test_interrupted_together_and_resumed_alone(
    alone: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    runs = begin(tmp_path, cache)
    interrupted(runs, cache, "save_state", 5, "after")
    for run in runs:
        train(open_run(run.folder), cache, features(cache))
    assert_all_same(runs, alone())


def test_interrupted_alone_and_resumed_together(
    alone: Any, cache: FeatureCache, tmp_path: Path
) -> None:
    runs = begin(tmp_path, cache)
    interrupted(runs[1:2], cache, "save_state", 2, "after")  # the others are not begun yet
    together(runs, cache)
    assert_all_same(runs, alone())


def test_a_run_that_stops_earlier_leaves_the_others(
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
    assert counted.runs == [3, 3, 3, 1]
    assert [run.summary()["epochs"] for run in runs] == [1, 2, 1]
    for run in others:
        train(run, cache, features(cache))
    assert_all_same(runs, others)


def test_a_run_without_numbers_leaves_the_others(
    alone: Any, cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = epoch.clip_loss
    calls = 0

    def spoilt(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        found = real(*args)
        return (
            found._replace(cross_entropy=found.cross_entropy * torch.nan) if calls == 2 else found
        )

    monkeypatch.setattr(epoch, "clip_loss", spoilt)
    runs = begin(tmp_path, cache)
    found = together(runs, cache)
    assert isinstance(found[runs[1]], RunError)
    assert "the loss is not a number any more" in str(found[runs[1]])
    assert not runs[1].finished
    assert_all_same(runs[::2], alone()[::2])


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
    assert_all_same(runs[1:], alone()[1:])


def test_what_the_device_refuses_is_not_tried_one_by_one(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(passes: Any, advance: Any) -> Any:
        tried.append(len(passes))
        raise UnsupportedError("cuda: what it does cannot be recorded")

    monkeypatch.setattr(lockstep, "train_epoch", refuse)
    found = together(begin(tmp_path, cache), cache)
    assert [str(error) for error in found.values()] == 3 * ["cuda: what it does cannot be recorded"]
    assert tried == [3]


def test_where_they_do_not_fit_side_by_side_they_train_one_by_one(
    alone: Any, cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, which they then begin anew."""
    real, tried = epoch._learn, 0

    def too_much(kind: Any, *batch: Any) -> Any:
        nonlocal tried
        if len(kind[0][0].passes) > 1:
            tried += 1
            if not tried % 2:
                raise torch.OutOfMemoryError("no memory")
        return real(kind, *batch)

    monkeypatch.setattr(epoch, "_learn", too_much)
    runs = begin(tmp_path, cache)
    together(runs, cache)
    assert tried > 2
    assert_all_same(runs, alone())


def test_where_no_copies_of_their_states_fit_they_train_one_by_one(
    alone: Any, cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(states: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(lockstep, "deepcopy", too_much)
    runs = begin(tmp_path, cache)
    together(runs, cache)
    assert_all_same(runs, alone())


def test_a_lone_run_tells_what_it_failed_on(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: Any) -> Any:
        raise OSError("gone")

    monkeypatch.setattr(lanes, "batches", gone)
    with pytest.raises(OSError, match="gone"):
        train(begin(tmp_path, cache)[0], cache, features(cache))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@kinds
@pytest.mark.parametrize("name", OTHERS)
def test_on_a_gpu_each_run_comes_out_as_it_does_alone(
    name: str, kinds: Kinds, make_cache: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels are the same, whatever runs beside them; most steps are replayed.

    Seeds hold out other videos, of which these have other numbers of clips.
    """
    cache = make_cache(tmp_path / "x.h5", videos=9, frames=lambda video: 31 + 3 * video)
    replays, real = [0], torch.cuda.CUDAGraph.replay

    def replay(graph: torch.cuda.CUDAGraph) -> None:
        replays[0] += 1
        real(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", replay)
    store = open_store(cache, videos_in(cache, ["1"]), "device", torch.device("cuda"))
    choices = {**OTHERS[name], "clips_per_video": None, "train_stride": 2}
    runs, others = (
        begin(tmp_path / kind, cache, kinds, **choices) for kind in ("several", "alone")
    )
    for run, outcome in train_together(runs, cache, store):
        assert isinstance(outcome, dict), (run, outcome)
    together, replays[0] = replays[0], 0
    for run in others:
        train(run, cache, store)
    assert replays[0] == 3 * together if kinds == PENALTIES else replays[0] > together > 0
    assert_all_same(runs, others)


def test_runs_train_side_by_side_on_a_gpu_alone() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    config = TrainConfig(fold="1")
    assert abreast(config, cpu) == 1
    assert abreast(config, gpu) > 1
    assert abreast(TrainConfig(fold="1", model="average"), gpu) == 1
