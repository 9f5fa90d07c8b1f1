"""Adam as the released code runs it, against its arithmetic in NumPy; and taken up again."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attnact.train.config import TrainConfig
from attnact.train.optimizer import ReleasedAdam, new_optimizer


def gradients(steps: int) -> Any:
    return np.random.default_rng(0).normal(size=(steps, 3, 2)) * [[[1, 1e-3]]]


def run(optimizer: torch.optim.Optimizer, theta: torch.Tensor, grads: Any) -> None:
    for grad in grads:
        theta.grad = torch.from_numpy(grad)
        optimizer.step()


def released(theta: Any, grads: Any, lr: float, decay: float) -> Any:
    """Written from `adam` of the released `actrec.py`."""
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(grads, 1):
        g = g + 2 * decay * theta
        m = 0.1 * g + 0.9 * m
        v = 0.001 * g**2 + 0.999 * v
        step = lr * np.sqrt(1 - 0.001**t) / (1 - 0.1**t)
        theta = theta - step * m / (np.sqrt(v) + 1e-8)
    return theta


@pytest.mark.parametrize("steps", [1, 2, 40])
def test_released_adam(steps: int) -> None:
    start = np.ones((3, 2))
    theta = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = ReleasedAdam([theta], lr=2e-4, weight_decay=2 * 0.01)
    run(optimizer, theta, gradients(steps))
    expected = released(start, gradients(steps), 2e-4, 0.01)
    np.testing.assert_allclose(theta.detach().numpy(), expected, rtol=1e-10)


def test_taken_up_again() -> None:
    whole, halves = (nn.Parameter(torch.ones(3, 2, dtype=torch.float64)) for _ in range(2))
    run(ReleasedAdam([whole], lr=2e-4, weight_decay=0.0), whole, gradients(6))
    first = ReleasedAdam([halves], lr=2e-4, weight_decay=0.0)
    run(first, halves, gradients(6)[:3])
    second = ReleasedAdam([halves], lr=1.0, weight_decay=0.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, halves, gradients(6)[3:])
    assert torch.equal(whole, halves)


def test_the_config_chooses() -> None:
    model = nn.Linear(2, 2)
    adam = new_optimizer(model, TrainConfig(weight_decay=0.25, learning_rate=0.5))
    assert type(adam) is torch.optim.Adam
    assert (adam.defaults["weight_decay"], adam.defaults["lr"]) == (0.5, 0.5)
    assert isinstance(new_optimizer(model, TrainConfig(optimizer="released")), ReleasedAdam)
