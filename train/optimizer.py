"""Adam, and Adam as the released code runs it; both with the weight decay γ in the loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from attnact.train.config import TrainConfig


class ReleasedAdam(torch.optim.Adam):
    """Adam as `adam` of the released `actrec.py` runs it.

    Its b1 = 0.1 and b2 = 0.001 are 1 − β₁ and 1 − β₂ where it averages, but stand for β₁ and β₂
    where it corrects the start: with 1 − 0.1ᵗ and 1 − 0.001ᵗ there is next to no correction, and
    the first hundred steps are three to seven times as long as Adam's. Its learning rate is always
    2e-4, whatever it is told; here it is what the config says.
    """

    B1, B2, EPSILON = 0.1, 0.001, 1e-8

    def __init__(self, parameters: Any, lr: float, weight_decay: float) -> None:
        betas = 1 - self.B1, 1 - self.B2
        super().__init__(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
        for group in self.param_groups:
            group["released_lr"] = lr

    # torch's signature has an overload for each way to call it; only this one is used here.
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; torch corrects the start by its own factors, which are taken out again."""
        for group in self.param_groups:
            # The same of all weights; to read it, a GPU is waited for.
            t = 1 + next((int(self.state[p]["step"]) for p in group["params"] if self.state[p]), 0)
            wanted = (1 - self.B2**t) ** 0.5 / (1 - self.B1**t)
            beta1, beta2 = group["betas"]
            root = (1 - beta2**t) ** 0.5
            group["lr"] = group["released_lr"] * wanted * (1 - beta1**t) / root
            group["eps"] = self.EPSILON / root
        super().step(closure)


def new_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Adam:
    """The optimiser of a run; γΣθ² has the gradient 2γθ, and `weight_decay` adds decay·θ."""
    learning_rate, decay = config.learning_rate, 2 * config.weight_decay
    if config.optimizer == "released":
        return ReleasedAdam(model.parameters(), learning_rate, decay)
    # Fused: one pass over the weights and their averages instead of ten.
    return torch.optim.Adam(model.parameters(), learning_rate, weight_decay=decay, fused=True)
