"""One pass over the clips: of one run, or of several that see the same clips in the same order."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attnact.machine import ranks
from attnact.machine.progress import Advance
from attnact.machine.replayed import Replayed, replays
from attnact.machine.streams import side_by_side
from attnact.model.layers import Draws, rows_of_batch
from attnact.model.models import Model, with_means
from attnact.model.windows import Windows
from attnact.train.config import TrainConfig
from attnact.train.feed.clips import Clips, Ints, some_of_each
from attnact.train.feed.places import FeatureStore
from attnact.train.feed.store import batches, moved
from attnact.train.loss import Loss, clip_loss
from attnact.train.selection import FINAL

Line = dict[str, Any]  # of metrics.jsonl


@dataclass(frozen=True)
class Pass:
    """An epoch of a run that is to be trained now.

    labels: of every video of the cache, on the store's device.
    model, optimizer: as they stand; the pass changes them.
    module: the model as it is called, by all processes that train it (`ranks.parallel`).
    clips: those that epochs choose from.
    phase, epoch: which it is, from 1 on.
    last: what the one before came to; None before the first.
    """

    config: TrainConfig
    store: FeatureStore
    labels: Tensor
    model: Model
    module: nn.Module
    optimizer: torch.optim.Adam
    clips: Clips
    phase: str
    epoch: int
    last: Line | None = None

    def visited(self, random: np.random.Generator) -> Ints:
        """The clips of the epoch, as positions in `clips`."""
        if self.config.clips_per_video is None:
            return np.arange(len(self.clips))
        return some_of_each(self.clips.video, self.config.clips_per_video, random)

    @property
    def clips_visited(self) -> int:
        """How many clips an epoch visits."""
        return len(self.visited(np.random.default_rng(0)))

    def seed(self) -> int:
        """Of the order and the dropout: of each epoch its own, so that it is the same whether or
        not the run was interrupted."""
        key = [self.config.seed, int(self.phase == FINAL), self.epoch]
        return int(np.random.SeedSequence(key).generate_state(1)[0])


class Share(NamedTuple):
    """What this process has of a batch: all of it, if it is alone.

    rows: which clips.
    clips: of the whole batch.
    weight: 1; or 0 where the batch has fewer clips than there are processes. One without a clip
        goes through the first for nothing, since all must take each step.
    """

    rows: slice
    clips: int
    weight: int


def train_epoch(passes: Sequence[Pass], advance: Advance) -> list[Line]:
    """Trains each run's model for an epoch; what it cost each.

    Several runs take each step side by side. They must differ in nothing but λ, and stand at the
    same epoch: the first one's clips, order and dropout are those of all.
    """
    first, start = passes[0], time.perf_counter()
    config = first.config
    torch.manual_seed(first.seed())
    random = np.random.default_rng(first.seed())
    order = random.permutation(first.visited(random))
    device = first.store.device
    # A CPU multiplies one row with a matrix faster in float32, so its features are not rounded.
    rounded = config.precision == "bfloat16" and device.type == "cuda"
    dtype = torch.bfloat16 if rounded else torch.float32
    total, told = torch.zeros(len(passes), 2, device=device), how_far(passes)
    own, shares = _share_out(order, config.batch_size)
    learn = partial(_learn, passes)
    whole: Callable[..., Tensor] = partial(learn, shares[0])
    if records(config, device):
        weights = [weight for it in passes for weight in it.model.parameters()]
        whole = Replayed(whole, device, weights, still=1)  # X, in the store's room
    found = batches(first.store, first.clips, np.concatenate(own), len(own[0]), dtype)
    for it in passes:
        it.module.train()
    for batch, share in zip(found, shares, strict=True):
        labels = first.labels[moved(batch.video, first.labels.device)]
        for it in passes:
            it.optimizer.zero_grad()
        if share != shares[0]:  # the last and smaller; what was recorded gives its memory back
            whole = partial(learn, share)
        total += share.weight * whole(batch.X, batch.mask, labels)
        for it in passes:
            it.optimizer.step()
        advance(len(passes) * share.clips, told)
    means = (ranks.sum_up(total) / len(order)).tolist()
    rest = {"clips": len(order), "seconds": round(time.perf_counter() - start, 3)}
    if ranks.count() > 1:
        rest["processes"] = ranks.count()
    return [{"loss": entropy, "penalty": penalty, **rest} for entropy, penalty in means]


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
    """Whether such a run's steps are recorded once an epoch and replayed: one process's on a GPU.

    The baselines have few kernels, and what several processes exchange is not tried.
    """
    return replays(device) and config.model == "attention" and ranks.count() == 1


def _learn(
    passes: Sequence[Pass], share: Share, X: Tensor | Windows, mask: Tensor, labels: Tensor
) -> Tensor:
    """Makes the gradients of a batch; gives each run's two losses, summed over clips, (runs, 2)."""
    draws = Draws()
    if len(passes) > 1:
        X = with_means(X)
    works = [partial(_learn_own, it, draws, share, X, mask, labels) for it in passes]
    return torch.stack(side_by_side(mask.device, works))


def _learn_own(
    own: Pass, draws: Draws, share: Share, X: Tensor | Windows, mask: Tensor, labels: Tensor
) -> Tensor:
    config, device = own.config, mask.device.type
    bfloat16 = torch.autocast(device, torch.bfloat16, config.precision == "bfloat16")
    with bfloat16, rows_of_batch(share.rows, share.clips), draws.taken():
        scores, maps = own.module(X, mask)
    loss = clip_loss(scores.float(), maps, labels, mask, config.penalty_form)
    torch.autograd.backward(_cost(config, loss, share))
    return torch.stack(loss).detach().sum(1)


def _share_out(order: Ints, size: int) -> tuple[list[Ints], list[Share]]:
    """This process's clips of every batch, and which they are of it."""
    rank, count = ranks.rank(), ranks.count()
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    shares = [
        Share(slice(rank, None, count), len(part), 1)
        if rank < len(part)
        else Share(slice(0, 1), len(part), 0)
        for part in parts
    ]
    return [part[it.rows] for part, it in zip(parts, shares, strict=True)], shares


def _cost(config: TrainConfig, loss: Loss, share: Share) -> Tensor:
    """What a run goes down on: of a batch, when all processes have been averaged."""
    clip_losses = loss.cross_entropy + config.attention_penalty * loss.penalty
    whole = clip_losses.sum() * (share.weight * ranks.count())
    return whole / share.clips if config.batch_loss == "mean" else whole
