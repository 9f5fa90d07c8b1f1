"""Attention maps and penalty against loops written from the equations, and the released code."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnact.model.attention import (
    ContextAttention,
    ContextLooks,
    LocationAttention,
    Looks,
    attention_penalty,
)
from attnact.model.windows import Window, Windows

B, T, L, C, H = 2, 4, 6, 5, 3


def softmax(scores: list[float]) -> list[float]:
    total = sum(math.exp(e) for e in scores)
    return [math.exp(e) / total for e in scores]


def randomly(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def map_at(attention: LocationAttention | ContextAttention, X: Tensor, t: int, h: Tensor) -> Tensor:
    """The map of frame t of X (B, T, L, C) for the hidden state h."""
    clips = Windows.of(X)
    with torch.no_grad():
        return looked(attention.looks(clips, h.dtype, *attention.tensors(clips)), t, h)


def looked(looks: Looks, t: int, hidden: Tensor) -> Tensor:
    """The maps of frame t, (B, L)."""
    maps = torch.full((len(hidden), L), torch.nan, dtype=hidden.dtype)
    looks.look(t, hidden, maps)
    return maps


def random_maps(seed: int, sharpness: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = sharpness * torch.randn((B, T, L), dtype=torch.float64, generator=generator)
    return scores.softmax(-1)


def test_location_attention_is_a_softmax_of_the_state() -> None:
    attention = LocationAttention(H, L).double()
    hidden, X = randomly(B, H), randomly(B, T, L, C)
    maps = map_at(attention, X, 0, hidden)
    W = attention.scores.weight.tolist()
    for b in range(B):
        scores = [sum(W[i][h] * hidden[b, h].item() for h in range(H)) for i in range(L)]
        assert maps[b].tolist() == pytest.approx(softmax(scores), abs=1e-12)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_context_attention_asks_every_location(layers: int) -> None:
    attention = ContextAttention(C, H, layers).double()
    hidden, X = randomly(B, H), randomly(B, T, L, C)
    p = {name: value.detach().numpy() for name, value in attention.named_parameters()}
    for t in range(T):
        maps = map_at(attention, X, t, hidden)
        for b in range(B):
            scores = []
            for i in range(L):
                seen = p["features.weight"] @ X[b, t, i].numpy() + p["features.bias"]
                for k in range(layers - 1):
                    seen = np.tanh(seen) if k > 0 else seen  # between the further layers alone
                    seen = p[f"deeper.{k}.weight"] @ seen + p[f"deeper.{k}.bias"]
                look = np.tanh(seen + p["hidden.weight"] @ hidden[b].numpy())
                scores.append(float(p["scores.weight"][0] @ look + p["scores.bias"][0]))
            assert maps[b].tolist() == pytest.approx(softmax(scores), abs=1e-12)


@pytest.mark.parametrize(
    ("apart", "reach"), [(True, 1), (True, 20), (False, 100), (False, math.nan)]
)
@pytest.mark.parametrize("asking", [0.1, 10, 1000])
def test_what_clips_share_is_exponentiated_once(apart: bool, reach: float, asking: float) -> None:
    """σ(p + a) of e^-p and e^-a; of the sum where e^-p would be out of bounds."""
    attention = ContextAttention(C, H, 1).double()
    frames, hidden = randomly(B + T - 1, L, C), asking * randomly(B, H)
    P = attention.project(frames).detach()
    frames *= reach / P.abs().max()  # without the bias: nearly where P is to reach
    clips = Windows(frames, [Window(0, B, 1, 1)], T)
    with torch.no_grad():
        looks = ContextLooks(clips, frames.dtype, *attention.tensors(clips))
        assert looks.apart == apart
        for t in range(T):
            seen = attention.project(frames[t : t + B]) + attention.hidden(hidden)[:, None]
            maps = attention.scores(torch.tanh(seen))[..., 0].softmax(-1)
            torch.testing.assert_close(looked(looks, t, hidden), maps, equal_nan=True)


def test_clips_of_many_frames_are_exponentiated_whole() -> None:
    attention = ContextAttention(C, H, 1).double()
    frames, hidden = randomly(50 + T - 1, L, C), randomly(50, H)
    shared = Windows(frames, [Window(0, 20, 1, 1), Window(20, 30, 1, 1)], T)
    with torch.no_grad():
        both = [Windows.of(shared.gather(frames)), shared]
        looks = [ContextLooks(it, hidden.dtype, *attention.tensors(it)) for it in both]
        for t in range(T):
            apart, together = (looked(it, t, hidden) for it in looks)
            torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("reach", [-100.0, -70.0, -59.0, 59.0, 70.0, 100.0])
@pytest.mark.parametrize("asking", [-100.0, 0.0, 100.0])
def test_no_exponential_overflows_float32(reach: float, asking: float) -> None:
    """With one location that is not at the end of the range, which the others are compared to."""
    P = torch.full((B + T - 1, L, C), reach)
    P[:, 0] = 0.5 - max(-55, min(55, asking))
    W, u = torch.zeros(C, H), torch.linspace(0.1, 1, C)
    W[:, 0] = asking
    hidden = torch.eye(H)[:1].expand(B, H)
    sums = P[0].double() + asking
    expected = (u.double() * sums.sigmoid()).sum(-1).softmax(-1)
    frames = torch.zeros(B + T - 1, L, C)
    clips = Windows(frames, [Window(0, B, 1, 1)], T)
    with torch.no_grad():
        maps = looked(ContextLooks(clips, P.dtype, P, W, u, torch.zeros(1)), 1, hidden)
    torch.testing.assert_close(maps.double(), expected.expand(B, L), rtol=1e-5, atol=1e-6)


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.sampled_from(["location", "context"]))
@settings(max_examples=40)
def test_maps_are_probabilities(seed: int, scale: float, form: str) -> None:
    torch.manual_seed(seed)
    attention = LocationAttention(H, L) if form == "location" else ContextAttention(C, H, 2)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.mul_(scale)
        maps = map_at(attention, torch.randn(B, T, L, C), 0, scale * torch.randn(B, H))
    assert maps.shape == (B, L)
    assert (maps >= 0).all()
    torch.testing.assert_close(maps.sum(1), torch.ones(B))


@pytest.mark.parametrize("form", ["sum", "mean"])
@pytest.mark.parametrize("valid", [T, 2, 1])
def test_penalty(form: str, valid: int) -> None:
    maps = random_maps(0, 1.0)
    mask = (torch.arange(T) < torch.tensor([[valid], [T]])).float()
    for b, steps in enumerate((valid, T)):
        expected = 0.0
        for i in range(L):
            expected += (1 - sum(maps[b, t, i].item() for t in range(steps))) ** 2
        expected /= L if form == "mean" else 1
        found = attention_penalty(maps, mask, form)[b].item()  # type: ignore[arg-type]
        assert found == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 2**31), st.floats(0, 30))
@settings(max_examples=40)
def test_penalty_is_least_when_everything_is_looked_at_alike(seed: int, sharpness: float) -> None:
    """Σ_i Σ_t l_ti = T whatever the maps, so uniform maps reach the minimum, L (1 − T/L)²."""
    penalty = attention_penalty(random_maps(seed, sharpness), torch.ones(B, T), "sum")
    assert (penalty >= L * (1 - T / L) ** 2 - 1e-9).all()
    assert (penalty <= (T - 1) ** 2 + L - 1 + 1e-9).all()  # all on one location
    even = torch.full((B, T, L), 1 / L, dtype=torch.float64)
    least = attention_penalty(even, torch.ones(B, T), "sum")
    torch.testing.assert_close(least, torch.full((B,), L * (1 - T / L) ** 2, dtype=torch.float64))
