"""One pass over the clips: of one run, or of several side by side that differ in λ or seed."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby, zip_longest
from typing import Any

import torch
from torch import Tensor

from attnact.machine import ranks
from attnact.machine.progress import Advance
from attnact.machine.replayed import Replayed, replays
from attnact.machine.streams import side_by_side
from attnact.model.dropout import Draws
from attnact.model.models import with_means
from attnact.model.windows import Windows
from attnact.train.config import TrainConfig
from attnact.train.lanes import Lane, Line, Pass, Share, Turn
from attnact.train.loss import Loss, clip_loss

Kind = list[tuple[Lane, Share]]  # of a step: who takes part, with how much of a batch


def train_epoch(passes: Sequence[Pass], advance: Advance) -> list[Line]:
    """Trains each run's model for an epoch; what it cost each.

    Several runs take each step side by side. They must differ in nothing but λ and seed, and stand
    at the same epoch. A seed that has fewer clips than another ends before it.
    """
    start = time.perf_counter()
    seeds = [it.config.seed for it in passes]
    lanes = {
        seed: Lane([it for it in passes if it.config.seed == seed]) for seed in dict.fromkeys(seeds)
    }
    for it in passes:
        it.module.train()
    told = how_far(passes)
    for kind, steps in groupby(zip_longest(*(lane.turns() for lane in lanes.values())), _kind):
        learn = _learning(kind)  # what was recorded for the last kind gives its memory back
        for step in steps:
            _take_step([turn for turn in step if turn], learn)
            advance(sum(len(lane.passes) * share.clips for lane, share in kind), told)
    lines = {seed: iter(lane.lines()) for seed, lane in lanes.items()}
    rest: Line = {"seconds": round(time.perf_counter() - start, 3)}
    if ranks.count() > 1:
        rest["processes"] = ranks.count()
    return [{**next(lines[seed]), **rest} for seed in seeds]


def _kind(step: Sequence[Turn | None]) -> Kind:
    return [(turn.lane, turn.share) for turn in step if turn]


def _learning(kind: Kind) -> Callable[..., Tensor]:
    """What makes the gradients of steps of this kind."""
    learn = partial(_learn, kind)
    passes = [it for lane, _ in kind for it in lane.passes]
    device = passes[0].store.device
    if not records(passes[0].config, device):
        return learn
    weights = [weight for it in passes for weight in it.model.parameters()]
    return Replayed(learn, device, weights, still=len(kind))  # X, in the room of its lane


def _take_step(turns: Sequence[Turn], learn: Callable[..., Tensor]) -> None:
    X, mask, labels = zip(*((turn.X, turn.mask, turn.labels) for turn in turns), strict=True)
    losses = torch.split(learn(*X, *mask, *labels), [len(turn.lane.passes) for turn in turns])
    for turn, own in zip(turns, losses, strict=True):
        turn.lane.total += turn.share.weight * own
        for it in turn.lane.passes:
            it.optimizer.step()
            it.optimizer.zero_grad()  # afterwards: the next step may be of other runs


def how_far(passes: Sequence[Pass]) -> str:
    """Which epoch it is, and what the one before came to for each run, in words."""
    first, last = passes[0], [it.last for it in passes if it.last]
    words = [f"epoch {first.epoch}/{first.config.epochs}"]
    if last:
        words.append("loss " + " / ".join(f"{line['loss']:.3g}" for line in last))
    if held := [100 * line["validation"] for line in last if "validation" in line]:
        words.append("held out " + " / ".join(f"{value:.0f} %" for value in held))
    return ", ".join(words)


def records(config: TrainConfig, device: torch.device) -> bool:
    """Whether such a run's steps are recorded and replayed: one process's on a GPU.

    The baselines have few kernels, and what several processes exchange is not tried.
    """
    return replays(device) and config.model == "attention" and ranks.count() == 1


def _learn(kind: Kind, *batches: Any) -> Tensor:
    """Makes the gradients of a batch of each lane; gives each run's two losses, (runs, 2).

    batches: the X of every lane, then their masks, then the labels.
    """
    works = []
    for position, (lane, share) in enumerate(kind):
        X, mask, labels = batches[position :: len(kind)]
        if len(lane.passes) > 1:
            X = with_means(X)
        works += [partial(_learn_own, it, lane.draws, share, X, mask, labels) for it in lane.passes]
    return torch.stack(side_by_side(batches[-1].device, works))


def _learn_own(
    own: Pass, draws: Draws, share: Share, X: Tensor | Windows, mask: Tensor, labels: Tensor
) -> Tensor:
    config, device = own.config, mask.device.type
    bfloat16 = torch.autocast(device, torch.bfloat16, config.precision == "bfloat16")
    with bfloat16, draws.taken():
        scores, maps = own.module(X, mask)
    loss = clip_loss(scores.float(), maps, labels, mask, config.penalty_form)
    torch.autograd.backward(_cost(config, loss, share))
    return torch.stack(loss).detach().sum(1)


def _cost(config: TrainConfig, loss: Loss, share: Share) -> Tensor:
    """What a run goes down on: of a batch, when all processes have been averaged."""
    clip_losses = loss.cross_entropy + config.attention_penalty * loss.penalty
    whole = clip_losses.sum() * (share.weight * ranks.count())
    return whole / share.clips if config.batch_loss == "mean" else whole
