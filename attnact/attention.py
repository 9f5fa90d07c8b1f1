"""Where to look: the two forms of soft attention, and the penalty that spreads it.

Both turn the top layer's last hidden state h_{t-1} into an attention map l_t, (B, L): a
probability for each location of the next frame. They differ in whether they see the frame.
A module has the weights; while a batch is worked on, its `Looks` has what one frame after another
needs, forward and back, of the M models that look at the same clips.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from attnact.vocabulary import PenaltyForm
from attnact.windows import Windows


class Looks(Protocol):
    """A form of attention during one batch, one step after another, and back again."""

    def look(self, t: int, hidden: Tensor) -> Tensor:
        """The attention maps of frame t, (M, B, L), for the hidden states (M, H, B)."""

    def start_back(self) -> None:
        """Makes room for the gradients."""

    def back(self, t: int, hidden: Tensor, maps: Tensor, gradient: Tensor) -> Tensor:
        """From the gradient of those maps to the hidden states'; keeps what its tensors' need."""

    def gradients(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """The gradients of its tensors, given all hidden states that looked, (M, T, H, B)."""


# Takes the clips, the type of the products, and the tensors, each with the M models first.
LooksMaker = Callable[..., Looks]


class LocationAttention(nn.Module):
    """l_t = softmax(W h_{t-1}): the paper's eq. 4, which does not see the frame."""

    def __init__(self, hidden_size: int, locations: int) -> None:
        super().__init__()
        self.scores = nn.Linear(hidden_size, locations, bias=False)

    @property
    def looks(self) -> LooksMaker:
        """How it looks at clips."""
        return LocationLooks

    def tensors(self, frames: Tensor) -> tuple[Tensor, ...]:
        """What of it looks at these frames, (n, L, C), and gets a gradient."""
        return (self.scores.weight,)


class LocationLooks:
    """l = softmax(W h), with W (M, L, H)."""

    def __init__(self, clips: Windows, dtype: torch.dtype, W: Tensor) -> None:
        self.W, self.wide = W.to(dtype), W.dtype
        self.size = len(W), clips.steps, W.shape[1], len(clips)

    def look(self, t: int, hidden: Tensor) -> Tensor:
        """See `Looks`."""
        return torch.softmax(torch.bmm(self.W, hidden).mT.to(self.wide), dim=-1)

    def start_back(self) -> None:
        """See `Looks`."""
        self.raw = self.W.new_empty(self.size)  # gradients before the softmax

    def back(self, t: int, hidden: Tensor, maps: Tensor, gradient: Tensor) -> Tensor:
        """See `Looks`."""
        self.raw[:, t] = _softmax_back(maps, gradient).mT
        return torch.bmm(self.W.mT, self.raw[:, t])

    def gradients(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """See `Looks`."""
        return (weight_gradients(self.raw, hidden).to(self.wide),)


class ContextAttention(nn.Module):
    """e_ti = u · tanh(P(X_ti) + W_d h_{t-1}) + c, l_t = softmax(e_t): the released code's form.

    P is affine, W_c X_ti + b; the further layers are affine too, with tanh between one of them and
    the next. Its authors call the X missing from the paper's eq. 4 an erratum. (`lstm_cond_layer`
    in the released `actrec.py`, whose `temperature_inverse` multiplies e_ti.)
    """

    def __init__(
        self, channels: int, hidden_size: int, layers: int, inverse_temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.inverse_temperature = inverse_temperature
        self.features = nn.Linear(channels, channels)
        self.deeper = nn.ModuleList(nn.Linear(channels, channels) for _ in range(layers - 1))
        self.hidden = nn.Linear(hidden_size, channels, bias=False)
        self.scores = nn.Linear(channels, 1)

    def project(self, X: Tensor) -> Tensor:
        """P(X), of the shape of X (..., C): it does not depend on the hidden state."""
        projected: Tensor = self.features(X)
        for i, layer in enumerate(self.deeper):
            projected = layer(torch.tanh(projected) if i else projected)
        return projected

    @property
    def looks(self) -> LooksMaker:
        """How it looks at clips."""
        return ContextLooks

    def tensors(self, frames: Tensor) -> tuple[Tensor, ...]:
        """What of it looks at these frames, (n, L, C), and gets a gradient."""
        u, c = (self.inverse_temperature * p for p in (self.scores.weight[0], self.scores.bias))
        return self.project(frames), self.hidden.weight, u, c


class ContextLooks:
    """l = softmax(u · tanh(P_t + W h) + c), with P of the frames.

    P is (M, n, L, C), W (M, C, H), u (M, C), c (M, 1).
    """

    def __init__(
        self, clips: Windows, dtype: torch.dtype, P: Tensor, W: Tensor, u: Tensor, c: Tensor
    ) -> None:
        self.clips, self.P, self.W, self.u, self.c = clips, P, W.to(dtype), u, c
        self.parts = _of_models(clips, P)
        # Not in the type of P: the tanh of bfloat16 is slow on a CPU.
        self.seen = u.new_empty(len(P), len(clips), *P.shape[2:])

    def look(self, t: int, hidden: Tensor) -> Tensor:
        """See `Looks`."""
        seen = self._see(t, hidden)
        scores = torch.bmm(seen.flatten(1, 2), self.u[..., None]).view(seen.shape[:3])
        return torch.softmax(scores + self.c[..., None], dim=-1)

    def start_back(self) -> None:
        """See `Looks`."""
        if self.clips.overlap:
            raise ValueError("clips that share frames can be scored, not trained on")
        self.dP, self.du = torch.empty_like(self.P), torch.zeros_like(self.u)
        self.dparts = _of_models(self.clips, self.dP)
        M, C = self.u.shape
        self.dwanted = self.W.new_empty(M, self.clips.steps, C, len(self.clips))

    def back(self, t: int, hidden: Tensor, maps: Tensor, gradient: Tensor) -> Tensor:
        """See `Looks`."""
        raw = _softmax_back(maps, gradient)
        # Made again: to keep it for every frame would take as much memory as P.
        seen = self._see(t, hidden)
        self.du += torch.bmm(raw.flatten(1, 2)[:, None], seen.flatten(1, 2))[:, 0]
        # tanh' = 1 - tanh². The gradients before a softmax sum to 0 over the locations, so that of
        # their sum here only the second part is left.
        square, u = seen.square_(), self.u[:, None]
        summed = torch.bmm(raw.flatten(0, 1)[:, None], square.flatten(0, 1))
        self.dwanted[:, t] = (summed.view(-1, len(self.clips), u.shape[-1]) * -u).mT
        u = u[:, None]
        slopes = square.mul_(-u).add_(u), raw[..., None]
        for dpart, slope, scale in zip(
            self.dparts, *(_split(factor, self.dparts) for factor in slopes), strict=True
        ):
            torch.mul(slope, scale, out=dpart[:, :, t])
        return torch.bmm(self.W.mT, self.dwanted[:, t])

    def gradients(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """See `Looks`."""
        W = weight_gradients(self.dwanted, hidden).to(self.u.dtype)
        # A softmax does not see c, which all its inputs share.
        return self.dP, W, self.du, torch.zeros_like(self.c)

    def _see(self, t: int, hidden: Tensor) -> Tensor:
        wanted = turned(torch.bmm(self.W, hidden).to(self.seen.dtype))[:, :, None]
        both = (_split(each, self.parts) for each in (wanted, self.seen))
        for part, asked, seen in zip(self.parts, *both, strict=True):
            torch.add(part[:, :, t], asked, out=seen)
        return self.seen.tanh_()


def weight_gradients(doutputs: Tensor, inputs: Tensor) -> Tensor:
    """Of the weights (M, outputs, inputs) of affine maps, over all steps: (M, T, …, B) of each.

    One product a model: they are large, and a batch of them is slow in bfloat16 on a CPU. There
    float32 is added up step by step, which is faster than bringing the steps together first.
    """
    if doutputs.is_cpu and doutputs.dtype != torch.bfloat16:
        sums = doutputs.new_zeros(len(doutputs), doutputs.shape[2], inputs.shape[2])
        for total, model_doutputs, model_inputs in zip(sums, doutputs, inputs, strict=True):
            for doutput, taken in zip(model_doutputs, model_inputs, strict=True):
                torch.addmm(total, doutput, taken.t(), out=total)
        return sums
    pairs = zip(doutputs.transpose(1, 2), inputs.transpose(1, 2), strict=True)
    return torch.stack([doutput.flatten(1) @ taken.flatten(1).t() for doutput, taken in pairs])


def turned(matrices: Tensor) -> Tensor:
    """Each model's matrix (M, I, J) transposed, (M, J, I), in new memory.

    torch copies a single matrix much faster than a stack of them.
    """
    new = matrices.new_empty(matrices.mT.shape)
    for one, matrix in zip(new, matrices, strict=True):
        one.copy_(matrix.t())
    return new


def _of_models(clips: Windows, values: Tensor) -> list[Tensor]:
    """What each model has of each frame, (M, n, …), for every clip: views (M, b, T, …), Σb = B."""
    return [part.movedim(2, 0) for part in clips.over(values.transpose(0, 1))]


def _split(values: Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What each clip has, (M, B, …), part by part."""
    return torch.split(values, [part.shape[1] for part in parts], dim=1)


def _softmax_back(maps: Tensor, gradient: Tensor) -> Tensor:
    """From the gradient of maps = softmax(e), (M, B, L), to that of e."""
    return maps * (gradient - (gradient * maps).sum(dim=-1, keepdim=True))


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
