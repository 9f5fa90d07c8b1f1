"""A run from its first clip to its result, with the author's way of choosing the epoch.

Selection: a part of the training videos is held out, by group; the best epoch is the one that
scores them best, and what it cost in training is noted. Final: a new model is trained on all
training videos until an epoch costs no more than that, and scored once on the test videos, which
choose nothing. (The author on the tracker of the released code, issue 13.)
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attnact.cache.features import FeatureCache
from attnact.errors import RunError
from attnact.machine import ranks
from attnact.machine.files import write_text
from attnact.model.checkpoint import Checkpoint, load_state, save_checkpoint, save_state
from attnact.model.models import Model
from attnact.train.config import TrainConfig
from attnact.train.feed.clips import Clips, Ints, cut_clips, scored_clips
from attnact.train.feed.places import FeatureStore
from attnact.train.initial import new_model
from attnact.train.lanes import Line, Pass
from attnact.train.lockstep import Course, Outcome, in_step
from attnact.train.optimizer import new_optimizer
from attnact.train.runs import Run, only_here
from attnact.train.scoring.predictions import write_attention, write_predictions
from attnact.train.scoring.scores import VideoScores, metric, metric_name, score_videos
from attnact.train.selection import FINAL, SELECTION, best_epoch, cost, fold_videos, sides_of
from attnact.vocabulary import Split

if TYPE_CHECKING:
    from attnact.train.events import Events


@dataclass(frozen=True)
class Training:
    """What every part of one run needs at hand."""

    run: Run
    cache: FeatureCache
    store: FeatureStore
    labels: Tensor  # of every video of the cache, on the store's device
    events: "Events | None" = None  # TensorBoard's

    @property
    def config(self) -> TrainConfig:
        """The run's choices."""
        return self.run.config

    def clips(self, videos: Ints) -> Clips:
        """The clips to train on of these videos."""
        config = self.config
        stride, form = config.train_stride, config.clip_form
        return cut_clips(self.cache, videos, fps=config.fps, stride=stride, form=form)


def train(
    run: Run, cache: FeatureCache, store: FeatureStore, tensorboard: bool = False
) -> dict[str, Any]:
    """Trains and tests, from wherever the run stands; gives its summary.

    Processes that have joined (`attnact.machine.ranks`) all call it; the first alone writes.

    Args:
        run: new, or begun before.
        cache: of the run.
        store: holds the features of the fold's videos.
        tensorboard: write TensorBoard's files too; it must be installed.

    Raises:
        RunError: another process trains the run, too few videos or groups, a damaged state, a
            model that was not trained here, or a loss that is not a number.
    """
    ((_, result),) = train_together([run], cache, store, tensorboard)
    if isinstance(result, Exception):
        raise result
    return result


def train_together(
    runs: Sequence[Run], cache: FeatureCache, store: FeatureStore, tensorboard: bool = False
) -> Iterator[tuple[Run, Outcome]]:
    """The same for runs that differ in nothing but λ and seed, side by side (`lockstep`).

    Gives each run with its summary, or with what it failed on, as soon as it is done.
    """
    courses = [_course(run, cache, store, tensorboard) for run in runs]
    for position, outcome in in_step(courses):
        yield runs[position], outcome


def _course(run: Run, cache: FeatureCache, store: FeatureStore, tensorboard: bool) -> Course:
    """A run from where it stands to its summary; whoever goes along it trains its epochs."""
    with only_here(run) if ranks.rank() == 0 else nullcontext():
        return (yield from _way(run, cache, store, tensorboard))


def _way(run: Run, cache: FeatureCache, store: FeatureStore, tensorboard: bool) -> Course:
    training = _training(run, cache, store)
    if tensorboard and ranks.rank() == 0:
        from attnact.train.events import Events

        training = replace(training, events=Events(run, cache, store))
    state = ranks.from_first(lambda: _begun(run))
    sides = sides_of(cache, run.config)
    enough = -np.inf
    if len(sides.held):
        if state["phase"] != FINAL:
            _, state = yield from _fit(training, SELECTION, sides.fit, sides.held, -np.inf, state)
        enough = cost(run.config, best_epoch(json.loads(state["history"])))
    model, state = yield from _fit(training, FINAL, sides.train, None, enough, state)
    if ranks.rank() == 0:
        features = cache.provenance
        save_checkpoint(run.model, Checkpoint(model, cache.classes, cache.multi_label, features))
    scored = _score(training, model, sides.test)
    chosen = {"epochs": state["epoch"], "held_out": len(sides.held)}
    return ranks.from_first(lambda: _finish(training, scored, chosen))


def _begun(run: Run) -> dict[str, Any]:
    """The state that the run was left in."""
    state = load_state(run.state)
    if state is None and run.model.exists():
        raise RunError(f"{run.folder}: holds a model, but not what it takes to train it further")
    return state or {"history": "[]", "phase": "", "epoch": 0}


def _finish(training: Training, scored: VideoScores, chosen: dict[str, int]) -> dict[str, Any]:
    """Writes what the test videos came to; gives the run's summary.

    chosen: the epochs that it was trained for, and by how many held-out videos.
    """
    run, cache = training.run, training.cache
    write_predictions(run.predictions, cache, scored)
    if scored.attention is not None:
        write_attention(run.attention, cache, scored)
    run.finish({**describe_scores(cache, scored), "fold": run.config.fold, **chosen})
    if training.events is not None:
        training.events.finish(run.summary())
    return run.summary()


def score_test(run: Run, cache: FeatureCache, store: FeatureStore, model: Model) -> VideoScores:
    """Scores the test videos of the run's fold."""
    training = _training(run, cache, store)
    return _score(training, model, fold_videos(cache, run.config.fold, Split.TEST))


def describe_scores(cache: FeatureCache, scored: VideoScores) -> dict[str, Any]:
    """The result in numbers, for `summary.json`."""
    entropy, spread = (
        (None, None) if scored.attention is None else scored.attention.mean(0).tolist()
    )
    return {
        "metric": metric_name(cache.multi_label),
        "value": metric(scored.scores, cache.labels[scored.videos]),
        "videos": len(scored.videos),
        "attention_entropy": entropy,
        "attention_spread": spread,
        "backbone": cache.provenance.get("backbone", ""),
        "weights": cache.provenance.get("weights", ""),
        "random_weights": cache.random_weights,
    }


def _training(run: Run, cache: FeatureCache, store: FeatureStore) -> Training:
    return Training(run, cache, store, torch.from_numpy(cache.labels).to(store.device))


def _score(training: Training, model: Model, videos: Ints) -> VideoScores:
    clips = scored_clips(training.cache, videos, training.config)
    return score_videos(model, training.store, clips, training.labels, training.config)


def _fit(
    training: Training,
    phase: str,
    videos: Ints,
    held: Ints | None,
    enough: float,
    state: Mapping[str, Any],
) -> Generator[Pass, Line, tuple[Model, dict[str, Any]]]:
    """One phase, from the state if the state is of this phase; gives its model, and how far it is.

    It ends after the first epoch that costs no more than `enough`, at the latest after the epochs
    of the config.
    """
    config, store = training.config, training.store
    torch.manual_seed(config.seed)
    model = new_model(config, training.cache).to(store.device)
    optimizer = new_optimizer(model, config)
    history, done = json.loads(state["history"]), 0
    if state["phase"] == phase:
        _take_up(training.run, state, model, optimizer)
        done = state["epoch"]
    so_far = {name: state[name] for name in ("phase", "epoch", "history")}
    module, clips, labels = ranks.parallel(model), training.clips(videos), training.labels
    for epoch in range(done + 1, config.epochs + 1):
        last = history[-1] if epoch > 1 else None
        if last is not None and cost(config, last) <= enough:
            break
        trained = yield Pass(
            config, store, labels, model, module, optimizer, clips, phase, epoch, last
        )
        if not np.isfinite(trained["loss"] + trained["penalty"]):
            raise RunError("the loss is not a number any more; try a smaller --learning-rate")
        line = {"phase": phase, "epoch": epoch, **trained}
        if held is not None:
            line |= _validate(training, model, held)
        history.append(ranks.from_first(line.copy))  # one for all, since they decide by it
        so_far = {"phase": phase, "epoch": epoch, "history": json.dumps(history)}
        if ranks.rank() == 0:
            tensors = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            _save_epoch(training, history, {**so_far, **tensors}, model)
    return model, so_far


def _take_up(
    run: Run, state: Mapping[str, Any], model: Model, optimizer: torch.optim.Optimizer
) -> None:
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise RunError(
            f"{run.state}: of another model than the config.json beside it tells of; undo what was "
            "changed there, or begin another run"
        ) from error


def _save_epoch(
    training: Training, history: list[Line], state: Mapping[str, Any], model: Model
) -> None:
    # The state last: nothing that it counts as done may be missing after an interruption.
    write_text(training.run.metrics, "".join(json.dumps(line) + "\n" for line in history))
    save_state(training.run.state, state)
    if training.events is not None:
        training.events.epoch(history[-1], model)


def _validate(training: Training, model: Model, held: Ints) -> dict[str, float]:
    scored = _score(training, model, held)
    value = metric(scored.scores, training.cache.labels[scored.videos])
    return {"validation": value, "validation_loss": scored.loss}
