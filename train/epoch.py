"""One pass over the clips: of one run, or of several that see the same clips in the same order."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from attnact.model import AttentionLSTM, Model
from attnact.progress import Advance
from attnact.stacked import StackedLSTMs
from attnact.train.clips import Clips, Ints, some_of_each
from attnact.train.config import TrainConfig
from attnact.train.loss import Loss, clip_loss
from attnact.train.optimizer import new_optimizer, stack_states, state_of
from attnact.train.selection import FINAL
from attnact.train.store import FeatureStore, batches

Line = dict[str, Any]  # of metrics.jsonl


@dataclass(frozen=True)
class Pass:
    """An epoch of a run that is to be trained now.

    labels: of every video of the cache, on the store's device.
    model, optimizer: as they stand; the pass changes them.
    clips: those that epochs choose from.
    phase, epoch: which it is, from 1 on.
    """

    config: TrainConfig
    store: FeatureStore
    labels: Tensor
    model: Model
    optimizer: torch.optim.Adam
    clips: Clips
    phase: str
    epoch: int

    def visited(self, random: np.random.Generator) -> Ints:
        """The clips of the epoch, as positions in `clips`."""
        if self.config.clips_per_video is None:
            return np.arange(len(self.clips))
        return some_of_each(self.clips.video, self.config.clips_per_video, random)

    @property
    def every(self) -> int:
        """How many clips an epoch visits."""
        return len(self.visited(np.random.default_rng(0)))

    def seed(self) -> int:
        """Of the order and the dropout: of each epoch its own, so that it is the same whether or
        not the run was interrupted."""
        key = [self.config.seed, int(self.phase == FINAL), self.epoch]
        return int(np.random.SeedSequence(key).generate_state(1)[0])


def train_epoch(passes: Sequence[Pass], advance: Advance) -> list[Line]:
    """Trains each run's model for an epoch; what it cost each.

    Several runs train as one stacked model. They must differ in nothing but λ, and stand at the
    same epoch: the first one's clips, order and dropout are those of all. Whatever is raised, the
    models of several are then as they were.
    """
    first, start = passes[0], time.perf_counter()
    config = first.config
    torch.manual_seed(first.seed())
    random = np.random.default_rng(first.seed())
    order = random.permutation(first.visited(random))
    device, bfloat16 = first.store.device, config.precision == "bfloat16"
    # A CPU multiplies one row with a matrix faster in float32, so its features are not rounded.
    dtype = torch.bfloat16 if bfloat16 and device.type == "cuda" else torch.float32
    total = torch.zeros(len(passes), 2, device=device)
    with _as_one(passes) as (model, optimizer):
        model.train()
        for batch in batches(first.store, first.clips, order, config.batch_size, dtype):
            with torch.autocast(device.type, torch.bfloat16, bfloat16):
                scores, maps = model(batch.X, batch.mask)
            labels = first.labels[torch.from_numpy(batch.video).to(first.labels.device)]
            each = [(scores, maps)] if len(passes) == 1 else zip(scores, maps, strict=True)
            losses = [
                clip_loss(one.float(), seen, labels, batch.mask, config.penalty_form)
                for one, seen in each
            ]
            optimizer.zero_grad()
            # Their sum: no model's weights have a part in another's cost.
            costs = [_cost(it.config, loss) for it, loss in zip(passes, losses, strict=True)]
            torch.autograd.backward(torch.stack(costs).sum())
            optimizer.step()
            total += torch.stack([torch.stack(loss) for loss in losses]).detach().sum(2)
            advance(len(passes) * len(batch.video), "")
    seconds = round(time.perf_counter() - start, 3)
    return [
        {"loss": entropy, "penalty": penalty, "clips": len(order), "seconds": seconds}
        for entropy, penalty in (total / len(order)).tolist()
    ]


def _cost(config: TrainConfig, loss: Loss) -> Tensor:
    """What a run goes down on: of a batch."""
    clip_losses = loss.cross_entropy + config.attention_penalty * loss.penalty
    return clip_losses.mean() if config.batch_loss == "mean" else clip_losses.sum()


@contextmanager
def _as_one(passes: Sequence[Pass]) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
    """The model and optimiser of the runs: of several a stack, which they are split from after."""
    if len(passes) == 1:
        yield passes[0].model, passes[0].optimizer
        return
    stacked = StackedLSTMs([cast("AttentionLSTM", it.model) for it in passes])
    optimizer = new_optimizer(stacked, passes[0].config)
    optimizer.load_state_dict(stack_states([it.optimizer.state_dict() for it in passes]))
    yield stacked, optimizer
    state = optimizer.state_dict()
    for m, it in enumerate(passes):
        it.model.load_state_dict(stacked.weights(m))
        it.optimizer.load_state_dict(state_of(state, m))
