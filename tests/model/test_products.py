"""Products with weights that were brought into an order of their own, against those in float64."""

import platform

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from attnact.model import products
from attnact.model.products import Weights, affine

M, B, INPUTS, OUTPUTS = 2, 5, 7, 12
CLOSE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 0.02}
kinds = pytest.mark.parametrize("kind", CLOSE, ids=str)
models = pytest.mark.parametrize("count", [1, M])


def make(kind: torch.dtype, count: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    weights, biases = torch.randn(count, OUTPUTS, INPUTS), torch.randn(count, OUTPUTS)
    rows = torch.randn(B, count, 2 * INPUTS).transpose(0, 1)[..., INPUTS:]  # as in the recurrence
    wide = torch.float64 if kind == torch.float64 else torch.float32
    return weights.to(kind), biases.to(wide), rows.to(kind)


@kinds
@models
def test_products(kind: torch.dtype, count: int) -> None:
    weights, biases, rows = make(kind, count)
    found = Weights(weights, biases).times(rows)
    assert found.dtype == kind
    expected = torch.einsum("moi,mbi->mbo", weights.double(), rows.double())
    torch.testing.assert_close(found.double(), expected, rtol=CLOSE[kind], atol=CLOSE[kind])


@kinds
@models
def test_sigmoids(kind: torch.dtype, count: int) -> None:
    """Of the biases' type, which sums are not rounded from after their sigmoid."""
    weights, biases, rows = make(kind, count)
    found = Weights(weights, biases).sigmoids(rows)
    assert found.dtype == biases.dtype
    sums = torch.einsum("moi,mbi->mbo", weights.double(), rows.double()) + biases[:, None]
    torch.testing.assert_close(found.double(), sums.sigmoid(), rtol=0, atol=CLOSE[kind])


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("rounded", [False, True])
def test_affine_maps_and_their_gradients_are_those_of_linear(
    kind: torch.dtype, rounded: bool
) -> None:
    """In autocast's type where that is on, and then only as far off as that rounds."""
    torch.manual_seed(0)
    rows, weight, bias = (torch.randn(s) for s in ((3, B, INPUTS), (OUTPUTS, INPUTS), (OUTPUTS,)))
    ours, exact = (
        [it.detach().to(type_).requires_grad_() for it in (rows, weight, bias)]
        for type_ in (kind, torch.float64)
    )
    with torch.autocast("cpu", torch.bfloat16, rounded):
        found = affine(*ours)
    expected = linear(*exact)
    assert found.dtype == (torch.bfloat16 if rounded and kind == torch.float32 else kind)
    near = CLOSE[found.dtype]
    torch.testing.assert_close(found.double(), expected, rtol=near, atol=2 * near)
    goal = torch.randn(found.shape)
    (found * goal).sum().backward()
    (expected * goal).sum().backward()
    for one, other in zip(ours, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert one.grad.dtype == kind
        off = (one.grad.double() - other.grad).norm()
        assert off < 5 * near * other.grad.norm()


def test_weights_that_lie_turned() -> None:
    weights, _, rows = make(torch.float32, 1)
    turned = weights.mT.contiguous().mT
    assert torch.equal(Weights(turned).times(rows), Weights(weights).times(rows))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="not tried there")
def test_onednn_is_there() -> None:
    """Else every step would take longer, and nothing would say why."""
    assert Weights(torch.ones(1, OUTPUTS, INPUTS))._packed


def test_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, biases, rows = make(torch.float32, M)
    expected = Weights(weights, biases).sigmoids(rows)
    monkeypatch.setattr(products, "_onednn", None)
    assert torch.equal(affine(rows, weights[0], biases[0]), linear(rows, weights[0], biases[0]))
    found = Weights(weights, biases)
    assert not found._packed
    torch.testing.assert_close(found.sigmoids(rows), expected)
