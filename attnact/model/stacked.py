"""Attention LSTMs of one shape as one: the same clips go through all of them, side by side.

Each clip is read once for all, and what the steps multiply the weights by is one batched product.
The dropout is that of each model alone from the same seed: every model drops the same.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from attnact.model.layers import same_draws
from attnact.model.models import AttentionLSTM, means_of, windows_of
from attnact.model.recurrence import attend
from attnact.model.windows import Windows

Made = TypeVar("Made")


class StackedLSTMs(nn.Module):
    """M models as one whose parameters have one more dimension, the first; copies of theirs."""

    def __init__(self, models: Sequence[AttentionLSTM]) -> None:
        super().__init__()
        self.model = deepcopy(models[0])
        everyone = [dict(model.named_parameters()) for model in models]
        for name, parameter in self.model.named_parameters():
            parameter.data = torch.stack([one[name].detach() for one in everyone])

    def forward(self, X: Tensor | Windows, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (M, B, T, N) and attention maps (M, B, T, L); see `Model.forward`."""
        model, clips = self.model, windows_of(X)
        means = means_of(clips, model.head)
        each = self._each(lambda one, m: one.before(clips, means, mask))
        before = zip(*each, strict=True)
        hidden, cell, seen = (
            [torch.stack(made) for made in zip(*it, strict=True)] for it in before
        )
        keep, looks = model.keep(clips), model.attention.looks
        tops, maps = attend(clips, hidden, cell, model.gates(), keep, looks, seen)
        return torch.stack(self._each(lambda one, m: one.head(tops[m]))), maps

    def weights(self, m: int) -> dict[str, Tensor]:
        """The state of the m-th model."""
        return {name: tensor[m] for name, tensor in self.model.state_dict().items()}

    def _each(self, work: Callable[[AttentionLSTM, int], Made]) -> list[Made]:
        """What `work` makes of each model and its number: the few products outside the steps.

        One after the other, since `torch.vmap` would not see autocast; each drops the same.
        """
        names, stacked = zip(*self.model.named_parameters(), strict=True)
        each = list(zip(*(tensor.unbind() for tensor in stacked), strict=True))
        drawn: list[Tensor] = []
        made = []
        for m, tensors in enumerate(each):
            weights = {f"model.{name}": it for name, it in zip(names, tensors, strict=True)}
            with same_draws(drawn):
                made.append(functional_call(_Work(self.model, work), weights, (m,)))
        return made


class _Work(nn.Module):
    """Something done with a model, as `functional_call` wants it: a module's forward."""

    def __init__(self, model: AttentionLSTM, work: Callable[[AttentionLSTM, int], object]) -> None:
        super().__init__()
        self.model, self.work = model, work

    def forward(self, m: int) -> object:
        return self.work(self.model, m)
