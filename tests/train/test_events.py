"""TensorBoard's files: every epoch once, whatever was interrupted, and a run that is the same."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from attnact.cache.features import FeatureCache
from attnact.errors import RunError
from attnact.train import loop
from attnact.train.config import TrainConfig
from attnact.train.feed.store import open_store, videos_in
from attnact.train.runs import Run, create_run, open_run

CONFIG = TrainConfig(
    fold="1", lstm_layers=1, hidden_size=4, epochs=3, train_stride=9, test_stride=9, validation=0.3
)


def go(folder: Path, cache: FeatureCache, events: bool = True) -> Run:
    run = open_run(folder) if folder.exists() else create_run(folder, CONFIG, cache)
    store = open_store(cache, videos_in(cache, ["1"]), "host", torch.device("cpu"))
    loop.train(run, cache, store, events)
    return run


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_curves_and_maps(cache: FeatureCache, tmp_path: Path) -> None:
    run = go(tmp_path / "run", cache)
    lines = json.loads("[" + ",".join(run.metrics.read_text().splitlines()) + "]")
    for phase in ("selection", "final"):
        events = read(run.folder / "tensorboard" / phase)
        found = [(it.step, it.value) for it in events.Scalars("loss")]
        expected = [(it["epoch"], it["loss"]) for it in lines if it["phase"] == phase]
        assert found == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in expected]
        images = events.Images("attention")
        assert [it.step for it in images] == [step for step, _ in expected]
        assert (images[0].width, images[0].height) == (8 * 8 * 16, 7 * 16)
    tags = read(run.folder / "tensorboard" / "choices").summary_metadata
    assert any("hparams" in tag for tag in tags)


def test_resumed(cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after an epoch was shown that the state does not have: it is shown once."""
    save, calls = loop.save_state, []

    def stop(path: Path, state: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(path, state)

    monkeypatch.setattr(loop, "save_state", stop)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run", cache)
    run = go(tmp_path / "run", cache)
    steps = [it.step for it in read(run.folder / "tensorboard/selection").Scalars("loss")]
    assert steps == [1, 2, 3]


def test_the_run_is_the_same_with_and_without(cache: FeatureCache, tmp_path: Path) -> None:
    one, other = (go(tmp_path / str(on), cache, on) for on in (True, False))
    assert one.model.read_bytes() == other.model.read_bytes()
    assert one.predictions.read_bytes() == other.predictions.read_bytes()
    assert not (other.folder / "tensorboard").exists()


def test_without_tensorboard(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RunError, match=r"pip install 'attnact\[tensorboard\]'"):
        go(tmp_path / "run", cache)
