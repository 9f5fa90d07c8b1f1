"""A GPU's kernels: on one where there is one, else as Triton's interpreter runs them on a CPU."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from attnact.model import attention, fused, layers, lstm, recurrence
from attnact.model.fused import (
    fuses,
    glimpse,
    glimpse_back,
    look,
    look_back,
    lstm_step,
    lstm_step_back,
    widen_uint8,
)
from attnact.model.models import ModelConfig
from tests.model.test_recurrence import SHAPES, dropped, make, run, slopes, used
from tests.plain_recurrence import plain_recurrence

pytest.importorskip("triton")
CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FLOATS = [torch.float32, torch.bfloat16]
MODULES = (attention, lstm, recurrence)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU has them, too."""
    for module in MODULES:
        monkeypatch.setattr(module, "fuses", lambda device: True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("B", "H"), [(3, 5), (4, 256), (1, 300)])
def test_a_step_and_its_gradients_are_those_of_autograd(B, H, dtype) -> None:
    """In float64, where the layer above took a part of each hidden state and the next step all."""
    torch.manual_seed(0)
    x = torch.randn(B, 4 * H).to(dtype).double().requires_grad_()
    cell = torch.randn(B, H, dtype=torch.float64, requires_grad=True)
    kept = 2.0 * torch.randint(0, 2, (B, H), dtype=torch.float64)
    above, own = torch.randn(2, B, H).to(dtype).double()
    dcell = torch.randn(B, H, dtype=torch.float64)
    bias = torch.randn(4 * H, dtype=torch.float64)
    i, f, o, g = (x + bias).chunk(4, dim=1)
    next_cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    hidden = o.sigmoid() * next_cell.tanh()
    ((hidden * (above * kept + own)).sum() + (next_cell * dcell).sum()).backward()

    raw, drops = there(x, dtype), there(kept, dtype)
    taken, above_it = torch.zeros(2, B, 7 + H, dtype=dtype, device=DEVICE)
    made_cell = torch.full((B, H), torch.nan, device=DEVICE)
    states = there(cell), made_cell, taken[:, 7:]
    gates = lstm_step(raw, there(bias), *states, drops, above_it[:, :H])
    assert not taken[:, :7].any()
    assert torch.equal(above_it[:, :H], taken[:, 7:] * drops)
    assert not above_it[:, H:].any()
    top = torch.full((B, H), torch.nan, device=DEVICE)
    lstm_step(raw, there(bias), *states, None, top)
    assert torch.equal(top, taken[:, 7:].float())
    close = {"rtol": 0, "atol": 2e-6 if dtype == torch.float32 else 0.01}
    torch.testing.assert_close(made_cell.double().cpu(), next_cell.detach(), rtol=0, atol=2e-6)
    torch.testing.assert_close(taken[:, 7:].double().cpu(), hidden.detach(), **close)

    wide = torch.zeros(B, H + 9, dtype=dtype, device=DEVICE)
    wide[:, :H] = there(above, dtype)
    dnext, draw = there(dcell), torch.empty_like(raw)
    parts = wide[:, :H], drops, there(own, dtype)
    lstm_step_back(*parts, gates, there(cell), made_cell, dnext, draw)
    torch.testing.assert_close(dnext.double().cpu(), cell.grad, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        draw.double().cpu(),
        x.grad,
        rtol=1e-5 if dtype == torch.float32 else 0.01,
        atol=1e-5,
    )


def there(values: Tensor, kind: torch.dtype = torch.float32) -> Tensor:
    return values.detach().to(DEVICE, kind)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("B", "L", "H"), [(3, 6, 7), (2, 49, 300), (1, 16, 64)])
def test_a_look_is_a_softmax_and_back_a_product(B, L, H, dtype) -> None:
    """Of hidden states that lie within other rows."""
    torch.manual_seed(0)
    taken, W = torch.randn(B, 5 + H).to(dtype), torch.randn(L, H).to(dtype)
    expected = torch.softmax(taken[:, 5:].double() @ W.double().t(), dim=1)
    maps = torch.full((B, L), torch.nan, device=DEVICE)
    look(taken.to(DEVICE)[:, 5:], W.to(DEVICE), maps)
    torch.testing.assert_close(maps.double().cpu(), expected, rtol=0, atol=1e-5)
    draw, wide = torch.randn(B, L).to(dtype), torch.randn(B, 5 + H).to(dtype)
    expected = wide.double()
    expected[:, 5:] += draw.double() @ W.double()
    dtaken = wide.to(DEVICE)
    look_back(draw.to(DEVICE), W.to(DEVICE), dtaken[:, 5:])
    close = {"rtol": 0.01, "atol": 0.01} if dtype == torch.bfloat16 else {"rtol": 0, "atol": 1e-4}
    torch.testing.assert_close(dtaken.double().cpu(), expected, **close)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("B", "L", "C"), [(3, 6, 7), (2, 49, 300), (1, 16, 64)])
def test_a_glimpse_and_its_gradients_are_those_of_autograd(B, L, C, dtype) -> None:
    """In float64, of a frame within clips of two, and of rows that lie within others."""
    torch.manual_seed(0)
    clips = torch.randn(B, 2, L, C).to(DEVICE, dtype)
    scores = torch.randn(B, L, dtype=torch.float64, requires_grad=True)
    maps = scores.softmax(1)
    kept = 2.0 * torch.randint(0, 2, (B, C), dtype=torch.float64)
    exact = torch.einsum("bl,blc->bc", maps, clips[:, 1].double().cpu())
    for drops in (None, kept):
        out = torch.zeros(B, C + 3, dtype=dtype, device=DEVICE)
        dropped_there = None if drops is None else there(drops, dtype)
        glimpse(there(maps), clips[:, 1], dropped_there, out[:, :C])
        expected = exact if drops is None else exact * drops
        rough = dtype == torch.bfloat16
        close = {"rtol": 0.01, "atol": 0.01} if rough else {"rtol": 0, "atol": 1e-4}
        torch.testing.assert_close(out[:, :C].double().cpu(), expected.detach(), **close)
        assert not out[:, C:].any()
        above = torch.randn(B, C + 1, device=DEVICE).to(dtype)[:, :C]
        dmaps = torch.randn(B, L, device=DEVICE)
        goal = (expected * above.double().cpu()).sum() + (maps * dmaps.double().cpu()).sum()
        (slope,) = torch.autograd.grad(goal, scores, retain_graph=True)
        draw = torch.full((B, L), torch.nan, dtype=dtype, device=DEVICE)
        glimpse_back(above, dropped_there, clips[:, 1], there(maps), dmaps, draw)
        close = {"rtol": 0.01, "atol": 0.01} if rough else {"rtol": 1e-5, "atol": 1e-4}
        torch.testing.assert_close(draw.double().cpu(), slope, **close)


@pytest.mark.parametrize("dtype", FLOATS)
def test_means_of_frames_are_not_rounded_to_their_type(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "fuses", lambda device: True)
    torch.manual_seed(0)
    frames = torch.randn(5, 49, 300).to(DEVICE, dtype)
    found = layers.frame_means(frames, torch.float32)
    expected = frames.double().mean(1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("config", SHAPES)
def test_fused_layers_come_as_close_to_float64_as_others(
    config: ModelConfig, dropout: bool, everywhere: None
) -> None:
    model, X = make(config)
    keep = dropped(config) if dropout else [None] * config.lstm_layers
    expected = plain_recurrence(model, X, keep)
    exact = torch.cat([slope.flatten() for slope in slopes(model, *expected)])
    model = model.float().to(DEVICE)
    kept = [None if it is None else it.float().to(DEVICE) for it in keep]
    found = run(model, X.float().to(DEVICE), kept)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double().cpu(), other, rtol=0, atol=5e-6)
    rounded = slopes(model, *(it.cpu() for it in found))
    assert (
        torch.cat([slope.flatten().cpu() for slope in rounded]) - exact
    ).norm() < 1e-5 * exact.norm()


def test_bfloat16_products_come_as_close_as_in_other_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, X = make(SHAPES[1])
    model, X = model.float().to(DEVICE), X.float().to(DEVICE)
    keep = [None if it is None else it.to(DEVICE, torch.bfloat16) for it in dropped(SHAPES[1])]
    found = []
    for there in (False, True):
        for module in MODULES:
            monkeypatch.setattr(module, "fuses", lambda device, there=there: there)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            tops, maps = run(model, X, keep)
        assert tops.dtype == maps.dtype == torch.float32
        made = torch.autograd.grad(tops.sum() + maps.square().sum(), used(model))
        found.append(torch.cat([it.flatten() for it in (tops, maps, *made)]))
    assert 0 < (found[1] - found[0]).norm() < 0.01 * found[0].norm()


def test_scoring_keeps_the_last_step_alone(everywhere: None) -> None:
    model, X = make(SHAPES[1])
    expected = run(model.float().to(DEVICE), X.float().to(DEVICE), [None] * 3)
    with torch.inference_mode():
        found = run(model, X.float().to(DEVICE), [None] * 3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ["channels last", "channels first"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_uint8_is_widened_and_rounded_once(order: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    cubes = torch.randint(0, 256, (3, 5, 70), dtype=torch.uint8)
    roots = torch.rand(3, 5)
    exact = (cubes.double() * roots.double()[..., None]).square()
    if order == "channels first":
        cubes = cubes.mT.contiguous().mT
    wide = torch.full((3, 5, 70), torch.nan, dtype=dtype, device=DEVICE)
    assert widen_uint8(cubes.to(DEVICE), roots.to(DEVICE), wide) is wide
    half = 2**-7 if DEVICE == CPU else 2**-8  # the interpreter cuts off
    close = {"rtol": half if dtype == torch.bfloat16 else 1e-6, "atol": 0}
    torch.testing.assert_close(wide.double().cpu(), exact, **close)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_gpu_can_be_given_them(dtype: str) -> None:
    """They are compiled for one, which needs none; in a process where they are not interpreted."""
    environment = {name: it for name, it in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", COMPILE, dtype], env=environment, check=True)


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from attnact.model import kernels

# Of the products' type.
STATES = ("above", "dgates", "dhidden", "draw", "hidden", "kept", "out", "own", "raw", "weights")
STATES += ("wide", "x")
SIZES = {"L": "i32", "cubes": "*u8"}

for name, sizes in (
    ("lstm_step", {"H": 512, "BLOCK": 256, "DROPS": True}),
    ("lstm_step_back", {"H": 512, "BLOCK": 256, "DROPS": True}),
    ("look", {"L": 49, "H": 512, "PLACES": 64, "BLOCK": 256}),
    ("look_back", {"L": 49, "H": 512, "BLOCK": 128}),
    ("glimpse", {"L": 49, "C": 1024, "BLOCK": 128, "DROPS": True}),
    ("glimpse_back", {"L": 49, "C": 1024, "PLACES": 64, "BLOCK": 256, "DROPS": True}),
    ("widen_uint8", {"C": 1024, "BLOCK": 1024}),
):
    kernel = getattr(kernels, name)
    kinds = {
        it: "constexpr" if it in sizes else "i32" if it.endswith("_stride")
        else SIZES.get(it, "*" + (sys.argv[1] if it in STATES else "fp32"))
        for it in kernel.arg_names
    }
    source = ASTSource(kernel, signature=kinds, constexprs=sizes)
    assert triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["cubin"]
"""


def test_other_devices_have_no_kernels() -> None:
    assert not fuses(CPU)
    assert not fuses(torch.device("mps"))


def test_a_gpu_without_a_compiler_says_so_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str) -> Any:
        raise RuntimeError("at 2:9:\nno C compiler\n")

    monkeypatch.setattr(fused, "import_module", fail)
    monkeypatch.setattr(fused.torch, "ones", lambda *size, **rest: torch.zeros(size))
    monkeypatch.setattr(fused.torch, "empty", lambda *size, **rest: torch.zeros(size))
    fuses.cache_clear()
    assert not fuses(torch.device("cuda"))
    assert not fuses(torch.device("cuda"))
    fuses.cache_clear()
    assert capsys.readouterr().err == (
        "cuda: Triton does not work here (no C compiler): training takes up to twice as long\n"
    )
