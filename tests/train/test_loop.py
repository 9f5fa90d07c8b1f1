"""Whole runs on a small cache: the same twice, the same when interrupted, blind to the test."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnact.cache.compact import Cubes
from attnact.cache.features import FeatureCache
from attnact.errors import RunError
from attnact.model.checkpoint import load_checkpoint
from attnact.train import lockstep, loop
from attnact.train.config import TrainConfig, resolve
from attnact.train.feed.clips import scored_clips
from attnact.train.feed.store import open_store, videos_in
from attnact.train.initial import new_model
from attnact.train.loop import train
from attnact.train.runs import Run, create_run, open_run
from attnact.train.scoring.predictions import read_predictions
from attnact.train.scoring.scores import metric
from attnact.train.selection import hold_out
from attnact.vocabulary import Split
from tests.made_runs import SMALL

CHOICES: dict[str, Any] = {
    **SMALL,
    "batch_size": 4,
    "train_stride": 3,
    "test_stride": 3,
    "validation": 0.3,
    "attention_penalty": 1.0,
}


def start(folder: Path, cache: FeatureCache, **choices: Any) -> Run:
    return create_run(folder, TrainConfig(**{**CHOICES, **choices}), cache)


def go(run: Run, cache: FeatureCache) -> dict[str, Any]:
    videos = videos_in(cache, [run.config.fold])
    return train(run, cache, open_store(cache, videos, "host", torch.device("cpu")))


def lines(run: Run) -> list[dict[str, Any]]:
    """The metrics of every epoch, but for the time that it took."""
    found = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{key: line[key] for key in line if key != "seconds"} for line in found]


def result(run: Run) -> tuple[Any, ...]:
    """All that a run leaves, but for times and the state."""
    return run.model.read_bytes(), run.predictions.read_bytes(), lines(run), run.summary()


@pytest.fixture(scope="module")
def whole(cache: FeatureCache, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was not interrupted."""
    run = start(tmp_path_factory.mktemp("runs") / "whole", cache)
    go(run, cache)
    return run


def test_what_a_run_leaves(whole: Run, cache: FeatureCache) -> None:
    names = {"config.json", "metrics.jsonl", "last.ckpt", "model.safetensors"}
    names |= {"predictions.csv", "attention.csv", "summary.json"}
    assert {file.name for file in whole.folder.iterdir()} == names
    phases = [(line["phase"], line["epoch"]) for line in lines(whole)]
    epochs = whole.summary()["epochs"]
    assert phases == [
        ("selection", 1),
        ("selection", 2),
        *(("final", e + 1) for e in range(epochs)),
    ]
    videos, scores = read_predictions(whole.predictions, cache)
    assert videos.tolist() == np.flatnonzero(cache.folds["1"] == Split.TEST).tolist()
    summary = whole.summary()
    assert summary["value"] == metric(scores, cache.labels[videos])
    assert (summary["metric"], summary["fold"], summary["videos"]) == ("accuracy", "1", 3)
    held = hold_out(np.flatnonzero(cache.folds["1"] == Split.TRAIN), cache.groups, whole.config)[1]
    assert summary["held_out"] == len(held)
    assert summary["random_weights"] is True
    assert (summary["backbone"], summary["weights"]) == (
        cache.provenance["backbone"],
        cache.provenance["weights"],
    )
    checkpoint = load_checkpoint(whole.model)
    assert checkpoint.features == cache.provenance
    assert (checkpoint.classes, checkpoint.multi_label) == (cache.classes, False)


def test_same_seed_same_run(whole: Run, cache: FeatureCache, tmp_path: Path) -> None:
    torch.manual_seed(99)  # what came before does not matter
    again = start(tmp_path / "again", cache)
    go(again, cache)
    assert result(again) == result(whole)


def test_other_seed_other_run(whole: Run, cache: FeatureCache, tmp_path: Path) -> None:
    other = start(tmp_path / "other", cache, seed=1)
    go(other, cache)
    assert lines(other)[0] != lines(whole)[0]
    assert other.model.read_bytes() != whole.model.read_bytes()


INTERRUPTIONS = [
    *(("save_state", n, when) for n in (1, 2, 3, 4) for when in ("before", "after")),
    *(("write_text", n, "before") for n in (1, 4)),
    *(("score_videos", n, "before") for n in (1, 3)),
    ("save_checkpoint", 1, "after"),
    ("write_predictions", 1, "after"),
]


@pytest.mark.parametrize(("name", "nth", "when"), INTERRUPTIONS)
def test_interrupted_and_resumed(
    name: str, nth: int, when: str, whole: Run, cache: FeatureCache, tmp_path: Path
) -> None:
    """Ctrl-C around the n-th call of something, then the run from what is on the disk."""
    run, calls = start(tmp_path / "run", cache), 0
    real: Callable[..., Any] = getattr(loop, name)

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and when == "before":
            raise KeyboardInterrupt
        found = real(*args)
        if calls == nth:
            raise KeyboardInterrupt
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            go(run, cache)
    assert not run.finished
    torch.manual_seed(99)
    go(open_run(run.folder), cache)
    assert result(run) == result(whole)


def test_a_finished_run_is_not_trained_again(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tmp_path / "run", cache)
    go(run, cache)
    before, state = result(run), run.state.read_bytes()
    monkeypatch.setattr(lockstep, "train_epoch", None)
    go(open_run(run.folder), cache)
    assert result(run) == before
    assert run.state.read_bytes() == state


def test_damaged_state(cache: FeatureCache, tmp_path: Path) -> None:
    run = start(tmp_path / "run", cache)
    run.state.write_bytes(b"no state")
    with pytest.raises(RunError, match=r"last\.ckpt: damaged"):
        go(run, cache)


def test_the_state_of_another_model(whole: Run, cache: FeatureCache, tmp_path: Path) -> None:
    """As where a run's choices were changed by hand."""
    run = start(tmp_path / "run", cache, hidden_size=whole.config.hidden_size + 1)
    run.state.write_bytes(whole.state.read_bytes())
    with pytest.raises(RunError, match=r"last\.ckpt: of another model than the config\.json"):
        go(run, cache)


@pytest.mark.parametrize("side", [Split.TRAIN, Split.TEST])
def test_a_fold_without_a_side(side: Split, make_cache, tmp_path: Path) -> None:
    folds = {"1": np.full(3, side, np.int8)}
    cache = make_cache(tmp_path / "x.h5", videos=3, folds=folds)
    with pytest.raises(RunError, match="fold 1 has no videos to train or test on"):
        go(start(tmp_path / "run", cache), cache)


def test_test_videos_choose_nothing(whole: Run, make_cache, tmp_path: Path) -> None:
    """Other features and labels of the test videos leave every epoch and the model as they were."""
    before = whole.open_cache()

    def cubes(video: int, frames: int) -> Cubes:
        read = before.read(int(before.first_frames[video]), frames)
        return 1 - read if video < 3 else read

    labels = np.arange(12) % 3
    labels[:3] = [2, 2, 1]  # the test videos of fold 1
    cache = make_cache(tmp_path / "x.h5", labels=labels, cubes=cubes)
    run = start(tmp_path / "run", cache)
    go(run, cache)
    assert run.predictions.read_bytes() != whole.predictions.read_bytes()
    assert lines(run) == lines(whole)
    assert run.model.read_bytes() == whole.model.read_bytes()


@pytest.mark.parametrize(
    ("values", "losses", "best"),
    [
        ([0.2, 0.9, 0.3], [1, 1, 1], 2),
        ([0.9, 0.2, 0.3], [3, 1, 1], 1),
        ([0.5, 0.5, 0.5], [3, 1, 2], 2),
        ([0.5, 0.5, 0.5], [1, 1, 1], 1),
    ],
)
def test_selection(
    values: list[float],
    losses: list[float],
    best: int,
    cache: FeatureCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trained on all until an epoch costs what the best one did; among equals, by the loss."""
    scored = [
        {"validation": value, "validation_loss": loss}
        for value, loss in zip(values, losses, strict=True)
    ]
    monkeypatch.setattr(loop, "_validate", lambda *_: scored.pop(0))
    chosen = start(tmp_path / "chosen", cache, epochs=3)
    epochs = go(chosen, cache)["epochs"]
    costs = [line["loss"] + line["penalty"] for line in lines(chosen)]  # λ = 1
    enough, final = costs[best - 1], costs[3:]
    assert len(final) == epochs == next((n for n in (1, 2) if final[n - 1] <= enough), 3)
    known = start(tmp_path / "known", cache, epochs=epochs, validation=0.0)
    go(known, cache)
    assert lines(chosen)[3:] == lines(known)
    assert chosen.model.read_bytes() == known.model.read_bytes()


@pytest.mark.parametrize(("enough", "epochs"), [(1e9, 1), (-1.0, 3)])
def test_the_last_training_ends_when_it_costs_enough(
    enough: float, epochs: int, cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = {"loss": enough, "penalty": 0.0}
    monkeypatch.setattr(loop, "best_epoch", lambda history: best)
    run = start(tmp_path / "run", cache, epochs=3)
    assert go(run, cache)["epochs"] == epochs
    before = result(run)
    (run.folder / "summary.json").unlink()  # as if it was stopped just before the end
    go(run, cache)
    assert result(run) == before


def test_the_held_out_are_scored_not_fitted(
    whole: Run, cache: FeatureCache, tmp_path: Path
) -> None:
    """Fold 1 trains on three groups, of which one is held out for a share of 0.3."""
    counts = [line["clips"] for line in lines(whole)]
    assert counts[0] == counts[1] < counts[2]
    videos = np.flatnonzero(cache.folds["1"] == Split.TRAIN)
    _, held = hold_out(videos, cache.groups, whole.config)
    clips_of = {33: 2, 30: 1, 31: 1, 12: 1}  # with stride 3
    held_clips = sum(clips_of[cache.rows[video].frames] for video in held)
    assert counts[2] - counts[0] == held_clips


def test_a_loss_that_is_no_number(cache: FeatureCache, tmp_path: Path) -> None:
    run = start(tmp_path / "run", cache, learning_rate=1e30)
    with pytest.raises(RunError, match="any more; try a smaller --learning-rate"):
        go(run, cache)
    assert not run.finished


def test_steps_are_of_adam_on_the_whole_loss(make_cache, tmp_path: Path) -> None:
    """Three steps on one clip against Adam written out, with γΣθ² in the loss.

    γ is large, because the first steps of Adam tell the gradient's sign rather than its size.
    """
    cache = make_cache(tmp_path / "x.h5", videos=2, groups=["a", "b"], frames=lambda _: 30, folds={
        "1": np.array([Split.TRAIN, Split.TEST], np.int8)
    })  # fmt: skip
    run = start(
        tmp_path / "run", cache, epochs=3, validation=0.0, dropout=0.0, weight_decay=0.03,
        attention_penalty=2.0,
    )  # fmt: skip
    go(run, cache)
    torch.manual_seed(run.config.seed)
    model = new_model(run.config, cache).double()
    X = torch.from_numpy(cache.read(0, 30).reshape(1, 30, 49, 1024)).double()
    moments = [[torch.zeros_like(theta)] * 2 for theta in model.parameters()]
    for k in range(1, 4):
        scores, maps = model(X, torch.ones(1, 30))
        loss = -scores.log_softmax(-1)[0, :, 0].sum()  # the first video's class is 0
        loss = loss + 2.0 * (1 - maps[0].sum(0)).square().sum()
        loss = loss + 0.03 * sum(theta.square().sum() for theta in model.parameters())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for theta, g, moment in zip(model.parameters(), gradients, moments, strict=True):
            moment[0] = 0.9 * moment[0] + 0.1 * g
            moment[1] = 0.999 * moment[1] + 0.001 * g**2
            m, v = moment[0] / (1 - 0.9**k), moment[1] / (1 - 0.999**k)
            with torch.no_grad():
                theta -= 0.01 * m / (v.sqrt() + 1e-8)
    for name, theta in load_checkpoint(run.model).model.named_parameters():
        wanted = dict(model.named_parameters())[name].float()
        assert (theta - wanted).abs().mean() < 1e-6, name  # single signs may turn in float32


def test_trained_and_tested_at_frame_rates_of_their_own(make_cache, tmp_path: Path) -> None:
    """60 frames at 15 fps are one clip of 59 frames' length and a bit; at 6 fps a short clip."""
    cache = make_cache(tmp_path / "x.h5", videos=6, frames=lambda video: 60)
    run = start(
        tmp_path / "run",
        cache,
        fps=15.0,
        test_fps=6.0,
        train_stride=1,
        test_stride=1,
        validation=0.0,
    )
    clips = scored_clips(cache, np.arange(2), run.config)
    assert (clips.step.tolist(), clips.frames.tolist()) == ([5, 5], [12, 12])
    assert scored_clips(cache, np.arange(2), run.config, 30.0).step.tolist() == [1] * 62
    assert scored_clips(cache, np.arange(1), replace(run.config, test_fps=None)).step[0] == 2
    go(run, cache)
    assert lines(run)[-1]["clips"] == 3 * 2  # final: three videos, two starts each


@pytest.mark.parametrize("batch_loss", ["mean", "sum"])
def test_the_loss_of_a_batch(
    batch_loss: str, cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the clips of the batch its mean, or its sum as the released code has it."""
    totals = []
    monkeypatch.setattr(torch.autograd, "backward", lambda loss: totals.append(loss.item()))
    choices = {"validation": 0.0, "epochs": 1, "batch_size": 10_000, "batch_loss": batch_loss}
    run = start(tmp_path / "run", cache, attention_penalty=2.0, **choices)
    go(run, cache)
    (line,) = lines(run)
    clips = line["clips"] if batch_loss == "sum" else 1
    assert totals == [pytest.approx(clips * (line["loss"] + 2 * line["penalty"]), rel=1e-5)]


@pytest.mark.parametrize("model", ["average", "max", "softmax"])
def test_baselines_learn_and_have_no_maps(model: str, cache: FeatureCache, tmp_path: Path) -> None:
    choices = {"model": model, "fold": "wide", "validation": 0.3, "attention_penalty": 0.0}
    easier = {"lstm_layers": 1, "dropout": 0.0, "batch_size": 1, "epochs": 5}
    rate = 1e-4 if model == "softmax" else 0.02
    run = start(tmp_path / "run", cache, **choices, **easier, learning_rate=rate)
    found = go(run, cache)
    assert found["value"] == 1.0
    assert found["attention_entropy"] is found["attention_spread"] is None


def test_recipe_released(cache: FeatureCache, tmp_path: Path) -> None:
    """All its parts in one run, which learns."""
    choices = {"recipe": "released", "hidden_size": 8, "epochs": 8, "batch_size": 4}
    config = resolve({**choices, "fold": "wide", "train_stride": 3, "learning_rate": 3e-3}, cache)
    run = create_run(tmp_path / "run", config, cache)
    assert go(run, cache)["value"] == 1.0


def test_a_model_that_was_not_trained_here(whole: Run, cache: FeatureCache, tmp_path: Path) -> None:
    run = start(tmp_path / "run", cache)
    run.model.write_bytes(whole.model.read_bytes())
    with pytest.raises(RunError, match="not what it takes to train it further"):
        go(run, cache)
    assert run.model.read_bytes() == whole.model.read_bytes()


EASIER = {"lstm_layers": 1, "dropout": 0.0, "batch_size": 1, "learning_rate": 0.02}


@pytest.mark.parametrize("attention", ["location", "context"])
def test_learns_one_class(attention: str, cache: FeatureCache, tmp_path: Path) -> None:
    choices = {"attention": attention, "fold": "wide", "validation": 0.0, "epochs": 5}
    run = start(tmp_path / "run", cache, **choices, **EASIER)
    found = go(run, cache)
    assert (found["metric"], found["videos"]) == ("accuracy", 6)
    assert found["value"] == 1.0  # chance: 1/3
    assert lines(run)[-1]["loss"] < 0.6 * lines(run)[0]["loss"]


def test_learns_several_classes(multi_label_cache: FeatureCache, tmp_path: Path) -> None:
    choices = {"fold": "wide", "validation": 0.5, "epochs": 6}
    run = start(tmp_path / "run", multi_label_cache, **choices, **EASIER)
    found = go(run, multi_label_cache)
    assert (found["metric"], found["videos"]) == ("mAP", 6)
    assert found["value"] > 0.9  # chance: about 0.4
    assert load_checkpoint(run.model).multi_label


def test_bfloat16_comes_close(whole: Run, cache: FeatureCache, tmp_path: Path) -> None:
    """The same clips and masks in the same order, so that only rounding differs."""
    run = start(tmp_path / "run", cache, precision="bfloat16")
    go(run, cache)
    assert run.model.read_bytes() != whole.model.read_bytes()
    for one, other in zip(lines(run), lines(whole), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02)
    scores, expected = (read_predictions(r.predictions, cache)[1] for r in (run, whole))
    np.testing.assert_allclose(scores, expected, atol=0.05)


def test_some_clips_of_each_video(cache: FeatureCache, tmp_path: Path) -> None:
    """As many as asked for, others each epoch, and the same when the run is repeated."""
    found = []
    for name in "ab":
        run = start(tmp_path / name, cache, clips_per_video=1)
        go(run, cache)
        found.append(result(run))
    assert found[0] == found[1]
    videos = np.flatnonzero(cache.folds["1"] == Split.TRAIN)
    assert found[0][2][-1]["clips"] == len(videos)
