"""Where to look: the two forms of soft attention, and the penalty that spreads it.

Both turn the top layer's last hidden state h_{t-1} into an attention map l_t, (B, L): a
probability for each location of the next frame. They differ in whether they see the frame.
A module has the weights; while a batch is worked on, its `Looks` has what one frame after another
needs, forward and back.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from attnact.model.fused import fuses, look, look_back
from attnact.model.products import Weights, affine, weight_gradients
from attnact.model.windows import Windows
from attnact.vocabulary import PenaltyForm


class Looks(Protocol):
    """A form of attention during one batch, one step after another, and back again.

    draws: room for the gradients of what the softmax makes the maps of, (T, B, L).
    """

    draws: Tensor

    def look(self, t: int, hidden: Tensor, maps: Tensor) -> None:
        """Writes the attention maps of frame t, (B, L), for the hidden states (B, H)."""

    def start_back(self) -> None:
        """Makes room for the gradients."""

    def back(self, t: int, hidden: Tensor, dhidden: Tensor) -> None:
        """Adds to the gradient of those hidden states, given draws[t]; keeps what tensors need."""

    def gradients(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """The gradients of its tensors, given all hidden states that looked, (T, B, H)."""


# Takes the clips, the type of the products, and the tensors.
LooksMaker = Callable[..., Looks]

CLIPS_AT_ONCE = 16  # 3 MB
FARTHEST = 60.0  # from 0; e to its power and back is no overflow, and far from one

sigmoid_backward: Any = torch.ops.aten.sigmoid_backward.grad_input


class LocationLooks:
    """l = softmax(W h), with W (L, H); a GPU has a kernel of its own for it."""

    def __init__(self, clips: Windows, dtype: torch.dtype, W: Tensor) -> None:
        self.W, self.wide = W.to(dtype), W.dtype
        self.asks = Weights(self.W)
        self.size = clips.steps, len(clips), len(W)
        self.fused = self.wide == torch.float32 and fuses(W.device)

    def look(self, t: int, hidden: Tensor, maps: Tensor) -> None:
        """See `Looks`."""
        if self.fused:
            look(hidden, self.W, maps)
        else:
            torch.softmax(self.asks.times(hidden), dim=-1, dtype=self.wide, out=maps)

    def start_back(self) -> None:
        """See `Looks`."""
        self.draws = self.W.new_empty(self.size)

    def back(self, t: int, hidden: Tensor, dhidden: Tensor) -> None:
        """See `Looks`."""
        if self.fused:
            look_back(self.draws[t], self.W, dhidden)
        else:
            dhidden.addmm_(self.draws[t], self.W)

    def gradients(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """See `Looks`."""
        return (weight_gradients(self.draws, hidden).to(self.wide),)


class LocationAttention(nn.Module):
    """l_t = softmax(W h_{t-1}): the paper's eq. 4, which does not see the frame."""

    looks: LooksMaker = LocationLooks

    def __init__(self, hidden_size: int, locations: int) -> None:
        super().__init__()
        self.scores = nn.Linear(hidden_size, locations, bias=False)

    def tensors(self, clips: Windows) -> tuple[Tensor, ...]:
        """What of it looks at these clips, and gets a gradient."""
        return (self.scores.weight,)


class ContextLooks:
    """l = softmax(u · σ(P_t + W h) + c), with P of the frames.

    P is (n, L, C), W (C, H), u (C,), c (1,). Where clips share frames P is spent on a CPU: e^-P
    takes its place. For σ(p + a) is 1 / (1 + e^-p e^-a), which asks for an exponential of each
    frame and one of each clip, not of each frame in each clip.
    """

    def __init__(
        self, clips: Windows, dtype: torch.dtype, P: Tensor, W: Tensor, u: Tensor, c: Tensor
    ) -> None:
        self.clips, self.P, self.W, self.u, self.c = clips, P, W.to(dtype), u, c
        self.asks = Weights(self.W)
        self.apart = clips.overlap and _bounded(P)
        if self.apart:
            for few in torch.split(P, CLIPS_AT_ONCE):
                few.neg_().exp_()
        self.parts = self._parts(P)
        # Not in the type of P: the sigmoid of bfloat16 is slow on a CPU.
        self.room = u.new_empty(max(map(_clips, self.parts)), *P.shape[1:])

    def _parts(self, values: Tensor) -> list[tuple[Tensor, ...]]:
        """What each frame has, (n, …), step by step and some clips at a time.

        Those of a part stay in the cache of a core: views (b, …), T of each part.
        """
        some = CLIPS_AT_ONCE if values.is_cpu else len(self.clips)
        parts = self.clips.over(values)
        return [few.unbind(1) for part in parts for few in torch.split(part, some)]

    def look(self, t: int, hidden: Tensor, maps: Tensor) -> None:
        """See `Looks`."""
        asked = self._ask(hidden)
        asks = self._split(asked.neg_().exp_() if self.apart else asked)
        scores = [self._score(part[t], few) for part, few in zip(self.parts, asks, strict=True)]
        torch.softmax(torch.cat(scores) + self.c, dim=-1, out=maps)

    def start_back(self) -> None:
        """See `Looks`."""
        if self.clips.overlap:
            raise ValueError("clips that share frames can be scored, not trained on")
        self.dP, self.du = torch.empty_like(self.P), torch.zeros_like(self.u)
        self.dparts = self._parts(self.dP)
        _, L, C = self.P.shape
        self.draws = self.u.new_empty(self.clips.steps, len(self.clips), L)
        self.dasked = self.u.new_empty(self.clips.steps, len(self.clips), C)
        self.ones = self.u.new_ones(1, L)
        self.asks_back = Weights(self.W.t())

    def back(self, t: int, hidden: Tensor, dhidden: Tensor) -> None:
        """See `Looks`."""
        rows = map(self._split, (self._ask(hidden), self.draws[t], self.dasked[t]))
        for part, dpart, asked, draw, dasked in zip(self.parts, self.dparts, *rows, strict=True):
            # Made again: to keep it for every frame would take as much memory as P.
            seen = self._see(part[t], asked)
            # Clip by clip, which leaves each core its own; see `_score`.
            self.du += torch.matmul(draw[:, None], seen)[:, 0].sum(0)
            slope = sigmoid_backward(draw[..., None].expand_as(seen), seen, grad_input=seen)
            torch.mul(slope, self.u, out=dpart[t])
            dasked[...] = torch.matmul(self.ones, slope)[:, 0] * self.u
        dhidden += self.asks_back.times(self.dasked[t].to(self.W.dtype))

    def gradients(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """See `Looks`."""
        W = weight_gradients(self.dasked.to(self.W.dtype), hidden).to(self.u.dtype)
        # A softmax does not see c, which all its inputs share.
        return self.dP, W, self.du, torch.zeros_like(self.c)

    def _ask(self, hidden: Tensor) -> Tensor:
        return self.asks.times(hidden).to(self.u.dtype)

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        """What each clip has, (B, …), part by part."""
        return torch.split(values, [_clips(part) for part in self.parts])

    def _score(self, part: Tensor, asked: Tensor) -> Tensor:
        """u · σ of a part's sums, (b, L)."""
        if self.apart:
            room = self.room[: len(part)]
            inverse = torch.addcmul(self.u.new_ones(()), part, asked[:, None], out=room)
            return torch.div(self.u, inverse, out=inverse).sum(-1)
        seen = self._see(part, asked)
        if seen.is_cpu:
            # After a product with one column, to write there again took six times as long in one
            # process and not in the next, as if each core had got rows from another's cache.
            return seen.mul_(self.u).sum(-1)
        return torch.mv(seen.flatten(0, 1), self.u).view(seen.shape[:2])

    def _see(self, part: Tensor, asked: Tensor) -> Tensor:
        """σ of a part's sums, (b, L, C)."""
        seen = self.room[: len(part)]
        return torch.add(part, asked[:, None], out=seen).sigmoid_()


class ContextAttention(nn.Module):
    """e_ti = u · tanh(P(X_ti) + W_d h_{t-1}) + c, l_t = softmax(e_t): the released code's form.

    P is affine, W_c X_ti + b; the further layers are affine too, with tanh between one of them and
    the next. Its authors call the X missing from the paper's eq. 4 an erratum. (`lstm_cond_layer`
    in the released `actrec.py`, whose `temperature_inverse` multiplies e_ti.)
    """

    looks: LooksMaker = ContextLooks

    def __init__(
        self, channels: int, hidden_size: int, layers: int, inverse_temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.inverse_temperature = inverse_temperature
        self.features = nn.Linear(channels, channels)
        self.deeper = nn.ModuleList(nn.Linear(channels, channels) for _ in range(layers - 1))
        self.hidden = nn.Linear(hidden_size, channels, bias=False)
        self.scores = nn.Linear(channels, 1)

    def project(self, X: Tensor, factor: float = 1.0) -> Tensor:
        """P(X) times the factor, (..., C) as X: it does not depend on the hidden state."""
        layers = cast("list[nn.Linear]", [self.features, *self.deeper])
        for i, layer in enumerate(layers):
            times = factor if layer is layers[-1] else 1.0
            X = affine(torch.tanh(X) if i > 1 else X, times * layer.weight, times * layer.bias)
        return X

    def tensors(self, clips: Windows) -> tuple[Tensor, ...]:
        """What of it looks at these clips, and gets a gradient."""
        # tanh x is 1 − 2σ(−2x), whose 1 a softmax does not see; torch is faster at a sigmoid.
        u, c = (self.inverse_temperature * p for p in (self.scores.weight[0], self.scores.bias))
        return self.project(clips.frames, -2), -2 * self.hidden.weight, -2 * u, c


def _bounded(P: Tensor) -> bool:
    """Whether e^-P neither overflows nor vanishes; on a GPU nobody waits to know."""
    if not P.is_cpu:
        return False
    least, most = torch.aminmax(P)
    return bool(least > -FARTHEST and most < FARTHEST)


def _clips(part: Sequence[Tensor]) -> int:
    return len(part[0])


def softmax_back(maps: Tensor, gradient: Tensor) -> Tensor:
    """From the gradient of maps = softmax(e), (B, L), to that of e."""
    made: Tensor = torch.ops.aten._softmax_backward_data(gradient, maps, -1, maps.dtype)
    return made


def attention_penalty(maps: Tensor, mask: Tensor, form: PenaltyForm) -> Tensor:
    """How unevenly the locations were looked at over a clip, (B,): eq. 7's Σ_i (1 − Σ_t l_ti)².

    The released code takes the mean over the locations instead of the sum, so that the same λ is
    49 times weaker there.

    Args:
        maps: attention maps, (B, T, L).
        mask: 1 for a frame, 0 for a repeat that fills up a short clip, (B, T).
        form: "sum" or "mean" over the locations.
    """
    looked = torch.einsum("btl,bt->bl", maps, mask.to(maps.dtype))
    uneven = (1 - looked).square()
    return uneven.sum(dim=1) if form == "sum" else uneven.mean(dim=1)
