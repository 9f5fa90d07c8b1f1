"""The recurrence against the loop that autograd differentiates, in float64 and in bfloat16."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnact.model.models import AttentionLSTM, ModelConfig
from attnact.model.recurrence import attend
from attnact.model.windows import Windows
from tests.plain_recurrence import plain_recurrence, start

B, T, L, C, H = 3, 5, 6, 7, 4
SMALL = ModelConfig(classes=2, hidden_size=H, locations=L, channels=C, dropout=0.0)
SHAPES = [
    replace(SMALL, lstm_layers=1),
    replace(SMALL, lstm_layers=3),
    replace(SMALL, attention="context", lstm_layers=2, inverse_temperature=2.0),
    replace(SMALL, attention="context", attention_layers=3, lstm_layers=1),
]
shapes = pytest.mark.parametrize(
    "config", SHAPES, ids=lambda c: f"{c.attention}{c.attention_layers}-lstm{c.lstm_layers}"
)


def make(config: ModelConfig) -> tuple[AttentionLSTM, Tensor]:
    torch.manual_seed(0)
    model = AttentionLSTM(config).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    return model, torch.randn(B, T, L, C, dtype=torch.float64)


def run(model: AttentionLSTM, X: Tensor, keep: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    clips = Windows.of(X)
    looks = model.attention.looks, model.attention.tensors(clips)
    return attend(clips, *start(model, X), model.gates(), keep, *looks)


def dropped(config: ModelConfig) -> list[Tensor | None]:
    sizes = [C] + [H] * (config.lstm_layers - 1)
    return [2.0 * torch.randint(0, 2, (T, B, size)).double() for size in sizes]


def slopes(model: AttentionLSTM, tops: Tensor, maps: Tensor) -> list[Tensor]:
    """Of something that depends on every hidden state and every map, along every parameter."""
    generator = torch.Generator().manual_seed(1)
    weights = [
        torch.randn(out.shape, generator=generator, dtype=torch.float64) for out in (tops, maps)
    ]
    goal = (weights[0] * tops).sum() + (weights[1] * maps.square()).sum()
    return list(torch.autograd.grad(goal, used(model)))


def used(model: AttentionLSTM) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if not name.startswith("head.")]


@pytest.mark.parametrize("dropout", [False, True])
@shapes
def test_states_maps_and_gradients_are_those_of_autograd(
    config: ModelConfig, dropout: bool
) -> None:
    model, X = make(config)
    keep = dropped(config) if dropout else [None] * config.lstm_layers
    found, expected = run(model, X, keep), plain_recurrence(model, X, keep)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for one, other in zip(slopes(model, *found), slopes(model, *expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@shapes
def test_float32_comes_as_close_as_it_can(config: ModelConfig) -> None:
    """To float64: its products are made by other code."""
    model, X = make(config)
    keep = dropped(config)
    expected = plain_recurrence(model, X, keep)
    exact = torch.cat([slope.flatten() for slope in slopes(model, *expected)])
    model = model.float()
    found = run(model, X.float(), [kept.float() for kept in keep if kept is not None])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=2e-6)
    rounded = torch.cat([slope.flatten() for slope in slopes(model, *found)])
    assert (rounded - exact).norm() < 1e-5 * exact.norm()


@shapes
def test_a_second_backward_pass_gives_the_same(config: ModelConfig) -> None:
    model, X = make(config)
    tops, maps = run(model, X, [None] * config.lstm_layers)
    goal = tops.sum() + maps.square().sum()
    first = torch.autograd.grad(goal, used(model), retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(goal, used(model))))


@shapes
def test_bfloat16_products_come_close(config: ModelConfig) -> None:
    """Within some roundings of bfloat16, 1/256; and the results stay float32 for what follows."""
    model, X = make(config)
    model, X = model.float(), X.float()
    keep = [None] * config.lstm_layers
    expected = run(model, X, keep)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(model, X, keep)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0, atol=0.05)
    exact = torch.cat([slope.flatten() for slope in slopes(model, *expected)])
    rounded = torch.cat([slope.flatten() for slope in slopes(model, *found)])
    assert (rounded - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_cubes_of_another_type_are_read_as_they_are(kind: Any) -> None:
    model, X = make(SHAPES[1])
    model, X = model.float(), X.to(kind)
    found = run(model, X, [None] * 3)
    expected = plain_recurrence(model, X.float())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.05)
