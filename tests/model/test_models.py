"""The soft-attention LSTM against NumPy loops over the equations, and the released code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from attnact.model.layers import frame_means
from attnact.model.models import AttentionLSTM, Model, ModelConfig, build_model
from attnact.model.windows import Window, Windows
from attnact.train.loss import clip_loss
from attnact.vocabulary import ModelKind

Floats = npt.NDArray[np.float64]
Drop = Callable[[Floats], Floats]

B, T, L, C, H, N = 3, 4, 6, 5, 4, 3
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], np.float64)
SMALL = ModelConfig(classes=N, hidden_size=H, locations=L, channels=C)
KINDS: tuple[ModelKind, ...] = ("average", "max", "softmax")
SHAPES = [
    replace(SMALL, lstm_layers=1),
    replace(SMALL, lstm_layers=3),
    replace(SMALL, lstm_layers=5),
    replace(SMALL, attention="context", lstm_layers=2),
    replace(SMALL, attention="context", attention_layers=3, lstm_layers=3),
    replace(SMALL, attention="context", lstm_layers=1, dropout_form="released"),
    replace(
        SMALL,
        attention="context",
        lstm_layers=1,
        start_layers=3,
        head_layers=2,
        head_size=7,
        inverse_temperature=2.0,
        dropout_form="released",
    ),
]
shapes = pytest.mark.parametrize(
    "config",
    SHAPES,
    ids=lambda c: f"{c.attention}{c.attention_layers}-lstm{c.lstm_layers}start{c.start_layers}",
)


def make(config: ModelConfig) -> Model:
    """A model with weights larger than the initial ones, so that nothing is nearly linear."""
    torch.manual_seed(0)
    model = build_model(config).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    return model.eval()


def clips() -> Tensor:
    return torch.randn(B, T, L, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def parameters(model: nn.Module) -> dict[str, Floats]:
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def reference(
    config: ModelConfig,
    p: Mapping[str, Floats],
    X: Floats,
    mask: Floats,
    drop_below: Drop = lambda x: x,
    drop_head: Drop = lambda x: x,
) -> tuple[Floats, Floats]:
    """Scores and maps, a clip and a step at a time, as section 5 of the paper's design has them."""

    def affine(name: str, x: Floats) -> Floats:
        y: Floats = p[f"{name}.weight"] @ x
        return y + p[f"{name}.bias"] if f"{name}.bias" in p else y

    def score_location(x: Floats, top: Floats) -> Floats:
        seen = affine("attention.features", x)
        for k in range(config.attention_layers - 1):
            seen = affine(f"attention.deeper.{k}", np.tanh(seen) if k else seen)
        return affine("attention.scores", np.tanh(seen + affine("attention.hidden", top)))[0]

    scores, maps = np.zeros((*mask.shape, config.classes)), np.zeros(X.shape[:3])
    for b, (clip, steps) in enumerate(zip(X, mask.astype(bool), strict=True)):
        mean = clip[steps].mean((0, 1))
        for k in range(config.start_layers - 1):
            mean = drop_head(np.maximum(0, affine(f"start.deeper.{k}", mean)))
        hidden = [np.tanh(affine(f"start.hidden.{k}", mean)) for k in range(config.lstm_layers)]
        cell = [np.tanh(affine(f"start.cell.{k}", mean)) for k in range(config.lstm_layers)]
        for t, cube in enumerate(clip):
            if config.attention == "location":
                e = affine("attention.scores", hidden[-1])
            else:
                e = np.array([score_location(x, hidden[-1]) for x in cube])
                e = config.inverse_temperature * e
            maps[b, t] = np.exp(e) / np.exp(e).sum()
            below = sum(share * x for share, x in zip(maps[b, t], cube, strict=True))
            for k in range(config.lstm_layers):
                gates = affine(f"layers.{k}.gates", np.append(drop_below(below), hidden[k]))
                i, f, o, g = np.split(gates, 4)
                cell[k] = sigmoid(f) * cell[k] + sigmoid(i) * np.tanh(g)
                below = hidden[k] = sigmoid(o) * np.tanh(cell[k])
            seen = drop_head(np.tanh(affine("head.first", drop_head(below))))
            for k in range(config.head_layers - 1):
                seen = drop_head(np.maximum(0, affine(f"head.deeper.{k}", seen)))
            scores[b, t] = affine("head.classes", seen)
    return scores, maps


@shapes
def test_scores_and_maps(config: ModelConfig) -> None:
    model, X = make(config), clips()
    scores, maps = model(X, torch.from_numpy(MASK))
    halve = (lambda x: x / 2) if config.dropout_form == "released" else (lambda x: x)
    expected = reference(config, parameters(model), X.numpy(), MASK, drop_head=halve)
    np.testing.assert_allclose(scores.detach().numpy(), expected[0], atol=1e-10)
    np.testing.assert_allclose(maps.detach().numpy(), expected[1], atol=1e-10)


def reference_loss(
    config: ModelConfig, X: Floats, labels: Floats, penalty: Floats, p: Mapping[str, Floats]
) -> float:
    """Mean over the clips of Σ_t cross-entropy_t + λ_i Σ_i (1 − Σ_t l_ti)², and γ Σθ²."""
    scores, maps = reference(config, p, X, MASK)
    total = 0.0
    for b in range(B):
        for t in range(int(MASK[b].sum())):
            if labels.ndim == 1:
                probabilities = np.exp(scores[b, t]) / np.exp(scores[b, t]).sum()
                total -= np.log(probabilities[int(labels[b])])
            else:
                q = sigmoid(scores[b, t])
                total -= (labels[b] * np.log(q) + (1 - labels[b]) * np.log(1 - q)).sum()
        total += penalty * ((1 - (maps[b] * MASK[b, :, None]).sum(0)) ** 2).sum()
    return total / B + 0.01 * sum((theta**2).sum() for theta in p.values())


@pytest.mark.parametrize("labels", [[2, 0, 1], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]])
@pytest.mark.parametrize("form", ["sum", "mean"])
@shapes
def test_gradients_of_the_loss(config: ModelConfig, form: Any, labels: list[Any]) -> None:
    """The slope along a random direction of each parameter, by finite differences."""
    config = replace(config, dropout_form="paper")
    model, X, target = make(config), clips(), torch.tensor(labels)
    p = parameters(model)
    weight = 10 / L if form == "mean" else 10
    loss_at = partial(reference_loss, config, X.numpy(), np.array(labels, float), weight)

    loss = clip_loss(*model(X, torch.from_numpy(MASK)), target, torch.from_numpy(MASK), form)
    total = (loss.cross_entropy + 10 * loss.penalty).mean()
    total = total + 0.01 * sum(theta.square().sum() for theta in model.parameters())
    assert total.item() == pytest.approx(loss_at(p), rel=1e-10)
    total.backward()
    rng, step = np.random.default_rng(0), 1e-5
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        way = rng.normal(size=parameter.shape)
        way /= np.linalg.norm(way)
        ahead, behind = ({**p, name: p[name] + sign * step * way} for sign in (1, -1))
        slope = (loss_at(ahead) - loss_at(behind)) / (2 * step)
        found = (parameter.grad.numpy() * way).sum()
        assert found == pytest.approx(slope, rel=1e-5, abs=1e-7), name


@shapes
def test_padding_changes_nothing(config: ModelConfig) -> None:
    model, X, mask = make(config), clips(), torch.from_numpy(MASK)
    garbage = torch.where(mask[..., None, None] > 0, X, 100 * torch.randn(X.shape).double())
    labels = torch.tensor([2, 0, 1])
    scores, maps = model(X, mask)
    other_scores, other_maps = model(garbage, mask)
    assert not torch.equal(scores, other_scores)  # the garbage is seen, after the clip's end
    torch.testing.assert_close(scores[mask > 0], other_scores[mask > 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(maps[mask > 0], other_maps[mask > 0], rtol=0, atol=1e-12)
    for one, other in zip(
        clip_loss(scores, maps, labels, mask, "sum"),
        clip_loss(other_scores, other_maps, labels, mask, "sum"),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", ["location", "context"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_top_state_steers_the_next_map(attention: Any, layer: int) -> None:
    """Another h₀ of a lower layer leaves the first map, and reaches the second from below."""
    model, X = make(replace(SMALL, attention=attention, lstm_layers=3)), clips()
    before = model(X, torch.ones(B, T))[1]
    with torch.no_grad():
        model.start.hidden[layer].bias += 1
    after = model(X, torch.ones(B, T))[1]
    assert torch.equal(before[:, 0], after[:, 0]) == (layer < 2)
    assert not torch.allclose(before[:, 1], after[:, 1])


@pytest.mark.parametrize("config", SHAPES[-4:], ids=["context1", "context3", "released", "deep"])
def test_dropout_in_training(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With units that are known to be dropped: which connections, and what scales the others."""

    def every_other(x: Any) -> Any:
        return x * (np.arange(x.shape[-1]) % 2)

    def draw(shape: Sequence[int], clips: int, kind: torch.dtype, device: torch.device) -> Tensor:
        odd = torch.arange(shape[-1], device=device) % 2 == 1
        return torch.where(odd, 32767, -32768).to(kind).expand(*shape)

    monkeypatch.setattr("attnact.model.dropout._numbers", draw)
    config = replace(config, dropout=0.3)
    model, X = make(config).train(), clips()
    scores, maps = model(X, torch.from_numpy(MASK))
    if config.dropout_form == "paper":
        drops = {"drop_below": lambda x: every_other(x) / 0.7}
        drops["drop_head"] = drops["drop_below"]
    else:
        drops = {"drop_head": every_other}
    expected = reference(config, parameters(model), X.numpy(), MASK, **drops)
    np.testing.assert_allclose(scores.detach().numpy(), expected[0], atol=1e-10)
    np.testing.assert_allclose(maps.detach().numpy(), expected[1], atol=1e-10)


@pytest.mark.parametrize("attention", ["location", "context"])
def test_learns_a_small_batch_by_heart(attention: Any) -> None:
    torch.manual_seed(0)
    model = AttentionLSTM(replace(SMALL, attention=attention, hidden_size=16, dropout=0.0))
    X, mask, labels = clips().float(), torch.from_numpy(MASK).float(), torch.tensor([2, 0, 1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = clip_loss(*model(X, mask), labels, mask, "sum").cross_entropy.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1  # it starts at about 2.6: 7 steps of ln 3 over 3 clips


def pooled(kind: str, p: Mapping[str, Floats], X: Floats) -> Floats:
    """Scores of a baseline with two LSTM layers, or of softmax regression, a step at a time."""
    scores = np.zeros((B, T, N))
    for b, (clip, steps) in enumerate(zip(X, MASK.astype(bool), strict=True)):
        if kind == "softmax":
            for t, cube in enumerate(clip):
                scores[b, t] = p["classes.weight"] @ cube.ravel() + p["classes.bias"]
            continue
        mean = clip[steps].mean((0, 1))
        state = [
            [np.tanh(p[f"start.{s}.{k}.weight"] @ mean + p[f"start.{s}.{k}.bias"]) for k in (0, 1)]
            for s in ("hidden", "cell")
        ]
        for t, cube in enumerate(clip):
            below = cube.mean(0) if kind == "average" else cube.max(0)
            for k in (0, 1):
                gates = sum(
                    p[f"layers.{k}.weight_{name}_l0"] @ x + p[f"layers.{k}.bias_{name}_l0"]
                    for name, x in (("ih", below), ("hh", state[0][k]))
                )
                i, f, g, o = np.split(gates, 4)  # torch's order
                state[1][k] = sigmoid(f) * state[1][k] + sigmoid(i) * np.tanh(g)
                below = state[0][k] = sigmoid(o) * np.tanh(state[1][k])
            seen = np.tanh(p["head.first.weight"] @ below + p["head.first.bias"])
            scores[b, t] = p["head.classes.weight"] @ seen + p["head.classes.bias"]
    return scores


@pytest.mark.parametrize("kind", ["average", "max", "softmax"])
def test_baselines(kind: Any) -> None:
    model = make(replace(SMALL, kind=kind, lstm_layers=2))
    X, mask = clips(), torch.from_numpy(MASK)
    scores, maps = model(X, mask)
    assert maps is None
    expected = pooled(kind, parameters(model), X.numpy())
    np.testing.assert_allclose(scores.detach().numpy(), expected, atol=1e-10)
    garbage = torch.where(mask[..., None, None] > 0, X, torch.full_like(X, 100.0))
    torch.testing.assert_close(scores[mask > 0], model(garbage, mask)[0][mask > 0])
    loss = clip_loss(scores, maps, torch.tensor([2, 0, 1]), mask, "sum")
    assert not loss.penalty.any()


@pytest.mark.parametrize("kind", ["average", "max"])
def test_dropout_of_the_baselines(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection from layer to layer, and those of the head: 2 layers drop 4 times."""
    seen = []

    def draw(shape: Sequence[int], clips: int, kind: torch.dtype, device: torch.device) -> Tensor:
        seen.append(shape[-1])
        return torch.zeros(*shape, dtype=kind, device=device)

    monkeypatch.setattr("attnact.model.dropout._numbers", draw)
    config = replace(SMALL, kind=kind, lstm_layers=2, dropout=0.3)
    make(config).train()(clips(), torch.from_numpy(MASK))
    assert seen == [C, H, H, H]


def test_frame_means() -> None:
    found = frame_means(clips().flatten(0, 1), torch.float64).numpy()
    np.testing.assert_allclose(found, clips().numpy().reshape(B * T, L, C).mean(1), atol=1e-12)


@pytest.mark.parametrize("config", [*SHAPES, *(replace(SMALL, kind=k) for k in KINDS)], ids=str)
def test_clips_that_share_frames_score_as_if_they_did_not(config: ModelConfig) -> None:
    model, frames = make(config), clips().flatten(0, 1)
    shared = Windows(frames, [Window(0, 2, 1, 1), Window(4, 3, 2, 1)], T)
    scores, maps = model(shared, torch.ones(5, T))
    expected = model(shared.gather(frames), torch.ones(5, T))
    torch.testing.assert_close(scores, expected[0])
    assert (maps is None) == (expected[1] is None)
    if maps is not None:
        torch.testing.assert_close(maps, expected[1])


def test_clips_that_share_frames_are_not_trained_on() -> None:
    model, frames = make(SHAPES[3]), clips().flatten(0, 1)
    scores, _ = model(Windows(frames, [Window(0, 2, 1, 1)], T), torch.ones(2, T))
    with pytest.raises(ValueError, match="share frames"):
        scores.sum().backward()
