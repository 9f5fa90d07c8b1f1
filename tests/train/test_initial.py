"""The released code's initial weights: which are orthogonal, which small; all are drawn."""

from typing import Any

import pytest
import torch
from torch import Tensor

from attnact.model.models import ModelConfig, build_model
from attnact.train.initial import draw_released_weights


def orthogonal(weight: Tensor) -> bool:
    """A square weight whose rows are of length 1 and at right angles."""
    return torch.allclose(weight @ weight.T, torch.eye(len(weight)), atol=1e-5)


def small(weight: Tensor) -> bool:
    return bool(abs(weight.std() / 0.01 - 1) < 0.1 and abs(weight.mean()) < 0.002)


def made(**choices: Any) -> dict[str, Tensor]:
    model = build_model(ModelConfig(classes=5, channels=96, **choices))
    draw_released_weights(model)
    return dict(model.named_parameters())


@pytest.mark.parametrize("hidden_size", [64, 96])
def test_attention(hidden_size: int) -> None:
    p = made(attention="context", attention_layers=3, lstm_layers=1, hidden_size=hidden_size)
    square = hidden_size == 96
    assert small(p["attention.features.weight"])  # norm_weight(ortho=False), though it is square
    assert orthogonal(p["attention.deeper.0.weight"])
    assert orthogonal(p["attention.deeper.1.weight"])
    assert orthogonal(p["head.first.weight"])
    assert small(p["head.classes.weight"])
    for name in ("attention.hidden.weight", "start.hidden.0.weight", "start.cell.0.weight"):
        assert (orthogonal if square else small)(p[name]), name
    gates = p["layers.0.gates.weight"].chunk(4)
    for gate in gates:
        assert (orthogonal if square else small)(gate[:, :96])
        assert orthogonal(gate[:, 96:])
    assert not torch.equal(gates[0], gates[1])
    assert not any(theta.any() for name, theta in p.items() if "bias" in name)


def test_pooled() -> None:
    p = made(kind="average", lstm_layers=2, hidden_size=64)
    for gate in p["layers.0.weight_ih_l0"].chunk(4):
        assert small(gate)
    for name in ("layers.0.weight_hh_l0", "layers.1.weight_ih_l0", "layers.1.weight_hh_l0"):
        assert all(orthogonal(gate) for gate in p[name].chunk(4))
    assert not p["layers.1.bias_ih_l0"].any()


def test_the_seed_decides() -> None:
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(made(lstm_layers=1, hidden_size=8)["layers.0.gates.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
