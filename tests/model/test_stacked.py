"""Models stacked against the same models one by one: their outputs, gradients and dropout."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attnact.model.models import AttentionLSTM, ModelConfig
from attnact.model.stacked import StackedLSTMs

M, B, T, L, C = 3, 4, 5, 6, 7
SMALL = ModelConfig(classes=2, lstm_layers=2, hidden_size=4, locations=L, channels=C)
SHAPES = [
    SMALL,
    replace(SMALL, attention="context", attention_layers=2),
    replace(SMALL, dropout_form="released", inverse_temperature=2.0, attention="context"),
    replace(SMALL, start_layers=2, head_layers=2, head_size=3),
]


def make(config: ModelConfig) -> list[AttentionLSTM]:
    torch.manual_seed(0)
    models = [AttentionLSTM(config).double() for _ in range(M)]
    for model in models:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return models


def clips() -> tuple[Tensor, Tensor]:
    mask = torch.ones(B, T)
    mask[1, 3:] = 0
    return torch.randn(B, T, L, C, dtype=torch.float64), mask


def goal(scores: Tensor, maps: Tensor) -> Tensor:
    """Something that depends on all of both."""
    return scores.float().square().sum() + maps.square().sum()


@pytest.mark.parametrize("config", SHAPES)
def test_a_stack_is_its_models_side_by_side(config: ModelConfig) -> None:
    """In training, so that each model alone draws its dropout in the order that the stack does."""
    models, (X, mask) = make(config), clips()
    stacked = StackedLSTMs(models)
    torch.manual_seed(1)
    found = stacked(X, mask)
    goal(*found).backward()
    slopes = dict(stacked.model.named_parameters())
    for m, model in enumerate(models):
        torch.manual_seed(1)
        expected = model(X, mask)
        goal(*expected).backward()
        torch.testing.assert_close([it[m] for it in found], [*expected], rtol=0, atol=1e-12)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(slopes[name].grad[m], parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("config", SHAPES[:2])
def test_a_stack_in_bfloat16(config: ModelConfig) -> None:
    """As close to its models as bfloat16 is to itself in another order of sums."""
    models, (X, mask) = make(config), clips()
    models, X = [model.float() for model in models], X.float()
    stacked = StackedLSTMs(models)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(1)
        scores, maps = stacked(X, mask)
        assert (scores.dtype, maps.dtype) == (torch.bfloat16, torch.float32)
        for m, model in enumerate(models):
            torch.manual_seed(1)
            alone, looks = model(X, mask)
            torch.testing.assert_close(scores[m], alone, rtol=0.02, atol=0.02)
            torch.testing.assert_close(maps[m], looks, rtol=0, atol=0.02)


def test_to_score_nothing_is_dropped() -> None:
    models, (X, mask) = make(SMALL), clips()
    with torch.inference_mode():
        found = StackedLSTMs(models).eval()(X, mask)
        for m, model in enumerate(models):
            torch.testing.assert_close([it[m] for it in found], [*model.eval()(X, mask)])


def test_a_stack_is_of_copies_that_can_be_taken_out() -> None:
    models = make(SMALL)
    before = [[p.clone() for p in model.parameters()] for model in models]
    stacked = StackedLSTMs(models)
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter += 1
    assert all(map(torch.equal, models[1].parameters(), before[1]))
    models[1].load_state_dict(stacked.weights(1))
    assert all(
        torch.equal(p, old + 1) for p, old in zip(models[1].parameters(), before[1], strict=True)
    )


def test_a_model_without_numbers_leaves_the_others() -> None:
    models, (X, mask) = make(SMALL), clips()
    with torch.no_grad():
        next(models[1].parameters()).fill_(torch.nan)
    stacked = StackedLSTMs(models).eval()
    scores, maps = stacked(X, mask)
    goal(scores, maps).backward()
    slopes = [it.grad for it in stacked.parameters()]
    for m, whole in enumerate([True, False, True]):
        assert all(it[m].isfinite().all() for it in (scores, maps, *slopes)) is whole
