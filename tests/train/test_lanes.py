"""An epoch's batches, order and dropout, against a plain loop over them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from attnact.cache.features import FeatureCache
from attnact.machine.progress import Advance
from attnact.train.config import TrainConfig
from attnact.train.epoch import train_epoch
from attnact.train.feed.clips import cut_clips
from attnact.train.feed.store import open_store
from attnact.train.initial import new_model
from attnact.train.lanes import Line, Pass
from attnact.train.loss import clip_loss
from attnact.train.optimizer import new_optimizer
from attnact.train.selection import FINAL, SELECTION
from tests.made_runs import SMALL

CONFIG = TrainConfig(**{**SMALL, "batch_size": 4, "validation": 0.0, "learning_rate": 1e-3})
KINDS: dict[str, dict[str, Any]] = {
    "location": {"train_stride": 2},
    "some clips": {"clips_per_video": 2},
    "context": {"attention": "context", "lstm_layers": 1, "clips_per_video": 2},
    "average": {"model": "average", "clips_per_video": 2},
    "released": {"dropout_form": "released", "batch_loss": "sum", "clips_per_video": 2},
    "a tenth": {"dropout": 0.1, "clips_per_video": 2},
}
NOWHERE: Advance = lambda more, note: None  # noqa: E731


@pytest.fixture(scope="module")
def cache(make_cache, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    made: FeatureCache = make_cache(tmp_path_factory.mktemp("cache") / "x.h5", videos=7)
    return made


def new_pass(cache: FeatureCache, config: TrainConfig, **where: Any) -> Pass:
    videos = np.arange(len(cache.paths))
    cut = {"fps": config.fps, "stride": config.train_stride, "form": config.clip_form}
    clips = cut_clips(cache, videos, **cut)
    torch.manual_seed(config.seed)
    model = new_model(config, cache)
    store = open_store(cache, videos, "host", torch.device("cpu"))
    labels, optimizer = torch.from_numpy(cache.labels), new_optimizer(model, config)
    at = {"phase": SELECTION, "epoch": 1, **where}
    return Pass(config, store, labels, model, model, optimizer, clips, **at)


def plainly(it: Pass, cache: FeatureCache) -> Line:
    """An epoch by a loop over batches, with torch's global numbers."""
    torch.manual_seed(it.seed())
    random = np.random.default_rng(it.seed())
    order = random.permutation(it.visited(random))
    total = torch.zeros(2)
    it.model.train()
    for start in range(0, len(order), it.config.batch_size):
        clips = it.clips[order[start : start + it.config.batch_size]]
        cubes = np.stack([cache.read(int(frame), 1)[0] for frame in clips.positions().ravel()])
        X = torch.from_numpy(cubes).float().view(len(clips), 30, 49, -1)
        mask = torch.from_numpy(clips.mask())
        scores, maps = it.model(X, mask)
        loss = clip_loss(scores, maps, it.labels[clips.video], mask, it.config.penalty_form)
        costs = loss.cross_entropy + it.config.attention_penalty * loss.penalty
        it.optimizer.zero_grad()
        (costs.mean() if it.config.batch_loss == "mean" else costs.sum()).backward()
        it.optimizer.step()
        total += torch.stack(loss).detach().sum(1)
    entropy, penalty = (total / len(order)).tolist()
    return {"loss": entropy, "penalty": penalty, "clips": len(order)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_what_a_plain_loop_makes(kind: str, cache: FeatureCache) -> None:
    """Of runs of two seeds, one of them with two λ; the last batch is smaller."""
    config = replace(CONFIG, **KINDS[kind])
    more = 9.0 if config.model == "attention" else 0.0
    configs = [
        replace(config, seed=seed, attention_penalty=penalty)
        for seed, penalty in ((0, 0.0), (3, 0.0), (0, more))
    ]
    passes = [new_pass(cache, it) for it in configs]
    lines = train_epoch(passes, NOWHERE)
    assert lines[0]["clips"] % config.batch_size
    for it, line in zip(passes, lines, strict=True):
        other = new_pass(cache, it.config)
        expected = plainly(other, cache)
        assert {name: line[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        before = new_pass(cache, it.config).model.state_dict()
        theirs = other.model.state_dict()
        for name, weight in it.model.state_dict().items():
            # An Adam step is of ±0.001 where a gradient is but noise.
            moved, expected_move = weight - before[name], theirs[name] - before[name]
            torch.testing.assert_close(moved, expected_move, rtol=1e-2, atol=2e-5)


def test_each_epoch_has_a_seed_of_its_own(cache: FeatureCache) -> None:
    seeds = {
        new_pass(cache, replace(CONFIG, seed=seed), phase=phase, epoch=epoch).seed()
        for seed in (0, 1)
        for phase in (SELECTION, FINAL)
        for epoch in (1, 2)
    }
    assert len(seeds) == 8
