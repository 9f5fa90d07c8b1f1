"""The loss of a clip, a step, a class and a location at a time."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from attnact.train.loss import clip_loss

B, T, L, N = 3, 5, 4, 3
VALID = [5, 3, 1]  # steps that count in each clip


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = 4 * torch.randn((B, T, N), dtype=torch.float64, generator=generator)
    maps = torch.rand((B, T, L), dtype=torch.float64, generator=generator)
    mask = (torch.arange(T) < torch.tensor(VALID)[:, None]).float()
    return scores, maps / maps.sum(-1, keepdim=True), mask


def test_one_class_holds() -> None:
    scores, maps, mask = inputs()
    labels = [2, 0, 1]
    found = clip_loss(scores, maps, torch.tensor(labels), mask, "sum").cross_entropy
    for b in range(B):
        expected = 0.0
        for t in range(VALID[b]):
            e = [math.exp(s) for s in scores[b, t].tolist()]
            expected -= math.log(e[labels[b]] / sum(e))
        assert found[b].item() == pytest.approx(expected, abs=1e-12)


def test_several_classes_hold() -> None:
    scores, maps, mask = inputs()
    labels = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    found = clip_loss(scores, maps, torch.tensor(labels), mask, "sum").cross_entropy
    for b in range(B):
        expected = 0.0
        for t in range(VALID[b]):
            for n in range(N):
                holds = 1 / (1 + math.exp(-scores[b, t, n].item()))
                expected -= math.log(holds if labels[b][n] else 1 - holds)
        assert found[b].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("form", "share"), [("sum", 1), ("mean", 1 / L)])
def test_penalty_is_apart_and_unweighted(form: Any, share: float) -> None:
    scores, maps, mask = inputs()
    loss = clip_loss(scores, maps, torch.tensor([2, 0, 1]), mask, form)
    for b in range(B):
        looked = [sum(maps[b, t, i].item() for t in range(VALID[b])) for i in range(L)]
        expected = share * sum((1 - x) ** 2 for x in looked)
        assert loss.penalty[b].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("labels", [[2, 0, 1], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]])
def test_certainty_is_finite(labels: list[Any]) -> None:
    """Scores far beyond what exp can hold, in float32, with every label wrong."""
    _, maps, mask = inputs()
    scores = torch.full((B, T, N), 1e4).requires_grad_()
    target = torch.tensor(labels)
    loss = clip_loss(scores * torch.tensor([1, -1, 1.0]), maps.float(), target, mask, "sum")
    loss.cross_entropy.sum().backward()
    assert torch.isfinite(loss.cross_entropy).all()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
