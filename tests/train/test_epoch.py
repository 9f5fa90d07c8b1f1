"""An epoch whose steps are replayed, as on a GPU, against the same epoch step by step."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from attnact.cache.features import FeatureCache
from attnact.train import epoch, lockstep
from attnact.train.config import TrainConfig
from attnact.train.feed.store import open_store, videos_in
from attnact.train.loop import train_together
from attnact.train.runs import Run, create_run
from attnact.vocabulary import Place
from tests.made_graphs import stand_in
from tests.made_runs import SMALL

CHOICES: dict[str, Any] = {
    **SMALL,
    "batch_size": 5,
    "clips_per_video": 3,
    "test_stride": 10,
    "validation": 0.0,
}
FIRST = ("selection", 1)
KINDS: dict[str, dict[str, Any]] = {
    "location": {},
    "context": {"attention": "context", "lstm_layers": 1},
    "bfloat16": {"precision": "bfloat16"},
    "released": {"dropout_form": "released", "optimizer": "released", "batch_loss": "sum"},
}


def made(
    folder: Path,
    cache: FeatureCache,
    penalties: list[float],
    place: Place,
    seeds: Sequence[int] = (0,),
    **choices: Any,
) -> list[Any]:
    """What runs with each λ and seed come to: their curves, and the bytes of their models.

    From memory a CPU's steps gather their frames as they look at them; from the disk all frames lie
    in one tensor, as on a GPU, where alone steps are recorded.
    """
    runs: list[Run] = [
        create_run(
            folder / f"{penalty}-{seed}",
            TrainConfig(**{**CHOICES, **choices, "attention_penalty": penalty, "seed": seed}),
            cache,
        )
        for penalty in penalties
        for seed in seeds
    ]
    store = open_store(cache, videos_in(cache, ["1"]), place, torch.device("cpu"))
    for _, outcome in train_together(runs, cache, store):
        assert isinstance(outcome, dict), outcome
    lines = [json.loads(line) for run in runs for line in run.metrics.read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return [*lines, *(run.model.read_bytes() for run in runs)]


@pytest.mark.parametrize("penalties", [[1.0], [0.0, 1.0, 10.0]], ids=["alone", "several"])
@pytest.mark.parametrize("kind", KINDS)
def test_replayed_steps_are_the_steps(
    kind: str,
    penalties: list[float],
    make_cache: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = make_cache(tmp_path / "x.h5", videos=9)
    graphs = stand_in(monkeypatch)
    expected = made(tmp_path / "plain", cache, penalties, "host", **KINDS[kind])
    assert not graphs.replays
    monkeypatch.setattr(epoch, "records", lambda config, device: True)
    assert made(tmp_path / "replayed", cache, penalties, "disk", **KINDS[kind]) == expected
    assert graphs.replays


def test_replayed_steps_of_several_seeds(
    make_cache: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which one has more clips to train on than the other, in the selection."""
    cache = make_cache(tmp_path / "x.h5", videos=9, frames=lambda video: 31 + 3 * video)
    choices = {"seeds": (0, 1), "validation": 0.3, "clips_per_video": None, "train_stride": 3}
    graphs = stand_in(monkeypatch)
    expected = made(tmp_path / "plain", cache, [1.0, 10.0], "host", **choices)
    monkeypatch.setattr(epoch, "records", lambda config, device: True)
    assert made(tmp_path / "replayed", cache, [1.0, 10.0], "disk", **choices) == expected
    clips = [line["clips"] for line in expected if isinstance(line, dict) and line["epoch"] == 1]
    assert clips == [15, 39, 24, 39] * 2
    # In each of two epochs: of the 3 batches that both have whole, and of the 7 at the end.
    assert graphs.replays == 2 * (2 + 6)


def test_where_several_classes_hold(
    multi_label_cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = stand_in(monkeypatch)
    expected = made(tmp_path / "plain", multi_label_cache, [1.0], "host")
    monkeypatch.setattr(epoch, "records", lambda config, device: True)
    assert made(tmp_path / "replayed", multi_label_cache, [1.0], "disk") == expected
    assert graphs.replays


def test_what_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    config = TrainConfig(**CHOICES)
    assert epoch.records(config, gpu)
    assert not epoch.records(config, cpu)
    assert not epoch.records(TrainConfig(**CHOICES, model="average"), gpu)
    monkeypatch.setattr("attnact.machine.ranks.count", lambda: 2)
    assert not epoch.records(config, gpu)


@pytest.mark.parametrize("penalties", [[1.0], [0.0, 10.0]], ids=["alone", "several"])
def test_the_progress_tells_the_epoch_and_what_the_one_before_came_to(
    penalties: list[float], make_cache: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: dict[str, None] = {}  # each once, in order

    @contextmanager
    def collect(what: str, total: float, unit: str) -> Iterator[Any]:
        yield lambda more, note: notes.setdefault(f"{what}: {note}")

    monkeypatch.setattr(lockstep, "progress", collect)
    cache = make_cache(tmp_path / "x.h5", videos=12)
    lines = made(tmp_path, cache, penalties, "host", validation=0.3, epochs=2)
    first = [it for it in lines if isinstance(it, dict) and (it["phase"], it["epoch"]) == FIRST]
    loss = " / ".join(f"{line['loss']:.3g}" for line in first)
    held = " / ".join(f"{100 * line['validation']:.0f} %" for line in first)
    assert [note for note in notes if not note.endswith(": ")][:3] == [
        "selection: epoch 1/2",
        f"selection: epoch 2/2, loss {loss}, held out {held}",
        "final: epoch 1/2",
    ]
