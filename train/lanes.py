"""What an epoch trains on: the batches of its runs, those of each seed in an order of their own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attnact.machine import ranks
from attnact.model.dropout import Draws
from attnact.model.models import Model
from attnact.model.windows import Windows
from attnact.train.config import TrainConfig
from attnact.train.feed.clips import Clips, Ints, some_of_each
from attnact.train.feed.places import FeatureStore
from attnact.train.feed.store import batches, moved
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


class Lane:
    """The runs of one seed in an epoch: they see the same batches and drop the same units.

    passes: of these runs, which differ in nothing but λ.
    clips: how many the epoch has.
    draws: the numbers that their dropout takes for the latest batch.
    total: what each run's losses have come to, summed over clips, (runs, 2).
    """

    draws: Draws

    def __init__(self, passes: Sequence[Pass]) -> None:
        first = passes[0]
        config, device = first.config, first.store.device
        random = np.random.default_rng(first.seed())
        order = random.permutation(first.visited(random))
        self.passes, self.clips = passes, len(order)
        self.total = torch.zeros(len(passes), 2, device=device)
        self._generator = torch.Generator(device).manual_seed(first.seed())
        own, self._shares = _share_out(order, config.batch_size)
        # A CPU multiplies one row with a matrix faster in float32, so its features are not rounded.
        rounded = config.precision == "bfloat16" and device.type == "cuda"
        dtype = torch.bfloat16 if rounded else torch.float32
        self._batches = batches(first.store, first.clips, np.concatenate(own), len(own[0]), dtype)

    def turns(self) -> Iterator["Turn"]:
        """Its batches, one after the other."""
        labels, latest = self.passes[0].labels, None
        for batch, share in zip(self._batches, self._shares, strict=True):
            if share == latest:
                self.draws.anew()
            else:
                self.draws = Draws(self._generator, share.rows, share.clips)
            latest = share
            own = labels[moved(batch.video, labels.device)]
            yield Turn(self, share, batch.X, batch.mask, own)

    def lines(self) -> list[Line]:
        """What the epoch cost each run, the mean over its clips."""
        means = (ranks.sum_up(self.total) / self.clips).tolist()
        return [
            {"loss": entropy, "penalty": penalty, "clips": self.clips} for entropy, penalty in means
        ]


class Turn(NamedTuple):
    """A batch of a lane, and the labels of its clips; see `Batch`."""

    lane: Lane
    share: Share
    X: Tensor | Windows
    mask: Tensor
    labels: Tensor


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
