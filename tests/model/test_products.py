"""Products with weights that were brought into an order of their own, against those in float64."""

import platform
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from attnact.model import products
from attnact.model.products import Weights, affine, weight_gradients

B, INPUTS, OUTPUTS = 5, 7, 12
CLOSE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 0.02}
kinds = pytest.mark.parametrize("kind", CLOSE, ids=str)


def make(kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    weights, biases = torch.randn(OUTPUTS, INPUTS), torch.randn(OUTPUTS)
    rows = torch.randn(B, 2 * INPUTS)[:, INPUTS:]  # as in the recurrence
    wide = torch.float64 if kind == torch.float64 else torch.float32
    return weights.to(kind), biases.to(wide), rows.to(kind)


@kinds
def test_products(kind: torch.dtype) -> None:
    weights, biases, rows = make(kind)
    found = Weights(weights, biases).times(rows)
    assert found.dtype == kind
    expected = rows.double() @ weights.double().t()
    torch.testing.assert_close(found.double(), expected, rtol=CLOSE[kind], atol=CLOSE[kind])


@kinds
def test_sigmoids(kind: torch.dtype) -> None:
    """Of the biases' type, which sums are not rounded from after their sigmoid."""
    weights, biases, rows = make(kind)
    found = Weights(weights, biases).sigmoids(rows)
    assert found.dtype == biases.dtype
    sums = rows.double() @ weights.double().t() + biases
    torch.testing.assert_close(found.double(), sums.sigmoid(), rtol=0, atol=CLOSE[kind])


LAYOUTS = {
    "clip by clip": lambda rows: rows,
    "step by step": lambda rows: rows.transpose(0, 1).contiguous().transpose(0, 1),
    "turned": lambda rows: rows.mT.contiguous().mT,
    "one clip": lambda rows: rows[:1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("then", ["none", "tanh"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("rounded", [False, True])
def test_affine_maps_and_their_gradients_are_those_of_linear(
    kind: torch.dtype, rounded: bool, then: Any, layout: str
) -> None:
    """In autocast's type where that is on, and then only as far off as that rounds."""
    torch.manual_seed(0)
    rows, weight, bias = (torch.randn(s) for s in ((3, B, INPUTS), (OUTPUTS, INPUTS), (OUTPUTS,)))
    rows = LAYOUTS[layout](rows)
    ours, exact = (
        [it.detach().to(type_).requires_grad_() for it in (rows, weight, bias)]
        for type_ in (kind, torch.float64)
    )
    with torch.autocast("cpu", torch.bfloat16, rounded):
        found = affine(*ours, then)
    expected = linear(*exact).tanh() if then == "tanh" else linear(*exact)
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


@kinds
@pytest.mark.parametrize("by_onednn", [False, True])
def test_weight_gradients(
    kind: torch.dtype, by_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all steps, whichever library multiplies, and however many rows it takes at a time."""
    packed = []
    monkeypatch.setattr(products, "Weights", lambda it: packed.append(it.shape) or Weights(it))
    monkeypatch.setattr(products, "_beats_mkl", lambda device: by_onednn)
    monkeypatch.setattr(products, "LEAST_OUTPUTS", OUTPUTS)
    monkeypatch.setattr(products, "ROWS_AT_ONCE", 4)
    torch.manual_seed(0)
    steps = 3
    doutputs = torch.randn(steps, B, OUTPUTS).to(kind)
    inputs = torch.randn(steps, B, 2 * INPUTS)[..., INPUTS:].to(kind)
    found = weight_gradients(doutputs, inputs)
    assert found.dtype == kind
    expected = torch.einsum("tbo,tbi->oi", doutputs.double(), inputs.double())
    near = 4 * CLOSE[kind]
    torch.testing.assert_close(found.double(), expected, rtol=near, atol=near)
    some = [(INPUTS, 4)] * 3 + [(INPUTS, 3)]
    assert packed == (some if by_onednn and kind == torch.float32 else [])


def test_where_mkl_is_the_slower_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """On AMD's Zen 5; not on an Intel with its features, nor where torch does not tell them."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(products, "_packs", lambda device, dtype: device == cpu)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    zen5, intel = {"sse4a": True, "avx512_vp2intersect": True}, {"avx512_vp2intersect": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: zen5, raising=False)
    assert products._beats_mkl(cpu)
    assert not products._beats_mkl(gpu)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: intel)
    assert not products._beats_mkl(cpu)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not products._beats_mkl(cpu)


def test_clips_that_lie_step_by_step_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made lies as they do, too."""
    rows, places = torch.randn(3, B, INPUTS).transpose(0, 1), []
    real = products._linear
    monkeypatch.setattr(
        products, "_linear", lambda rows, *rest: places.append(rows.data_ptr()) or real(rows, *rest)
    )
    made = affine(rows, torch.randn(OUTPUTS, INPUTS), torch.randn(OUTPUTS))
    assert made.transpose(0, 1).is_contiguous()
    assert places == ([rows.data_ptr()] if products._packs(rows.device, rows.dtype) else [])


def test_weights_that_lie_turned() -> None:
    weights, _, rows = make(torch.float32)
    turned = weights.t().contiguous().t()
    assert torch.equal(Weights(turned).times(rows), Weights(weights).times(rows))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="not tried there")
def test_onednn_is_there() -> None:
    """Else every step would take longer, and nothing would say why."""
    assert Weights(torch.ones(OUTPUTS, INPUTS))._packed is not None


def test_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, biases, rows = make(torch.float32)
    expected = Weights(weights, biases).sigmoids(rows)
    monkeypatch.setattr(products, "_onednn", None)
    assert torch.equal(affine(rows, weights, biases), linear(rows, weights, biases))
    assert torch.equal(affine(rows, weights, biases, "tanh"), linear(rows, weights, biases).tanh())
    found = Weights(weights, biases)
    assert found._packed is None
    torch.testing.assert_close(found.sigmoids(rows), expected)
