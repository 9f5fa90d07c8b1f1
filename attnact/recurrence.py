"""The recurrence of the attention LSTM: T steps, and their backward pass written out.

Look, glimpse, LSTM layers, a step after the other (section 3 of the paper). Autograd would keep
what every small operation made, and add to the weights' gradients at every step. Here X is read in
its own type, once in each direction; a layer's input and state lie side by side where its product
reads them, a row a clip; and its weights' gradient is made of all steps at the end. Products run in
the type of `torch.autocast` where that is on, everything else in the type of the weights.

Models of one shape go through the same clips side by side, M of them: X is read once for all.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnact.attention import LooksMaker, sigmoid_backward, weight_gradients
from attnact.products import Weights, product_type
from attnact.windows import Windows


def attend(
    clips: Windows,
    hidden: Sequence[Tensor],
    cell: Sequence[Tensor],
    layers: Sequence[tuple[Tensor, Tensor]],
    keep: Sequence[Tensor | None],
    looks: LooksMaker,
    looks_tensors: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """The top layer's hidden states (M, B, T, H) and the attention maps (M, B, T, L).

    Args:
        clips: the feature cubes, of any float; they get no gradient.
        hidden, cell: the state of each layer before the first frame, (M, B, H).
        layers: the weight (M, 4H, inputs + H) and bias (M, 4H) of each layer's gates i, f, o, g,
            which take the layer's input and its last hidden state.
        keep: what each layer's input is multiplied by in every model, (T, B, inputs): dropout.
        looks, looks_tensors: the form of attention, and its tensors, (M, …).
    """
    weights = [tensor for layer in layers for tensor in layer]
    wide, device = weights[0].dtype, clips.frames.device.type
    dtype = product_type(weights[0])
    start = torch.stack(tuple(hidden)).to(wide), torch.stack(tuple(cell)).to(wide)
    learns = torch.is_grad_enabled()
    with torch.autocast(device, enabled=False):
        tops, maps = _Recurrence.apply(  # type: ignore[no-untyped-call]
            dtype, learns, looks, tuple(keep), clips, *start, len(weights), *weights, *looks_tensors
        )
    return tops.permute(1, 2, 0, 3), maps.permute(1, 2, 0, 3)


class _Layer:
    """An LSTM layer during one batch, and what it keeps of each step.

    To learn, of all T steps; else of the last, and the steps take turns in what a processor's cache
    holds. A tanh is made and kept as σ(−2x), in a sixth of the time: tanh x = 1 − 2σ(−2x).

    taken: the input and the last hidden state, side by side as the product takes them,
        (M, B, inputs + H); of one step more, as cells.
    gates: i, f, o after their sigmoids, and σ(−2x) for g, (M, B, 4H).
    cells: the cell states, (M, B, H); squashed: σ(−2x) of the next.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        steps: int,
        weight: Tensor,
        bias: Tensor,
        hidden: Tensor,
        cell: Tensor,
    ) -> None:
        M, B, self.H = hidden.shape
        self.weight = self._last_gate(weight.to(dtype, copy=True), -2)
        self.affine = Weights(self.weight, self._last_gate(bias.clone(), -2))
        self.all_taken = self.weight.new_empty(steps + 1, M, B, weight.shape[2])
        self.taken = self.all_taken.unbind()
        inputs, states = self.all_taken.tensor_split([weight.shape[2] - self.H], dim=3)
        self.inputs, self.hidden = inputs.unbind(), states.unbind()
        self.cells = hidden.new_empty(steps + 1, M, B, self.H).unbind()
        self.gates: list[Tensor] = [hidden] * steps
        self.squashed: list[Tensor] = [hidden] * steps
        self.hidden[0].copy_(hidden)
        self.cells[0].copy_(cell)

    def _last_gate(self, gates: Tensor, factor: float) -> Tensor:
        """Something of the gates, (M, 4H, …), after the last of them is multiplied in place."""
        gates[:, -self.H :] *= factor
        return gates

    def step(self, t: int) -> Tensor:
        """From the input and the hidden state of step t to the next hidden state (eq. 1–3)."""
        gates = self.affine.sigmoids(_at(self.taken, t))
        i, f, o, g = gates.chunk(4, dim=2)
        cell = torch.addcmul(i, i, g, value=-2, out=_at(self.cells, t + 1))
        cell.addcmul_(f, _at(self.cells, t))
        squashed = torch.mul(cell, -2).sigmoid_()
        kept = t % len(self.gates)
        self.gates[kept], self.squashed[kept] = gates, squashed
        return _at(self.hidden, t + 1).copy_(torch.addcmul(o, o, squashed, value=-2))

    def start_back(self) -> None:
        """Makes room for the gradients; those of the gates before their sigmoids take over."""
        self.dcell = torch.zeros_like(self.cells[0])
        self.dhidden = torch.zeros_like(self.dcell)  # through the next step of this layer
        self.all_dgates = self.all_taken.new_empty(len(self.gates), *self.gates[0].shape)
        self.dgates = self.all_dgates.unbind()
        self.raw = torch.empty_like(self.gates[0])
        self.dbias = self.raw.new_zeros(len(self.raw), 4 * self.H)
        # The slope of a tanh is 4 σ(−2x) (1 − σ(−2x)): these have g's four, and undo its −2.
        self.affine_back = Weights(self._last_gate(self.weight.clone(), -2).mT)

    def step_back(self, t: int, dhidden: Tensor) -> Tensor:
        """From the gradient of `hidden[t + 1]`, (M, B, H), to that of `inputs[t]`."""
        gates, squashed, dcell = self.gates[t], self.squashed[t], self.dcell
        same = self.dgates[t].dtype == self.raw.dtype
        i, f, o, g = gates.chunk(4, dim=2)
        through = torch.mul(dhidden, o)
        dcell.add_(sigmoid_backward(through, squashed, grad_input=through), alpha=4)
        raw = self.dgates[t] if same else self.raw
        di, df, do, dg = raw.chunk(4, dim=2)
        torch.addcmul(dcell, dcell, g, value=-2, out=di)
        torch.mul(dcell, self.cells[t], out=df)
        torch.addcmul(dhidden, dhidden, squashed, value=-2, out=do)
        torch.mul(dcell, i, out=dg)
        dcell.mul_(f)
        sigmoid_backward(raw, gates, grad_input=raw)
        if not same:
            self.dgates[t].copy_(raw)
        self.dbias += raw.sum(1)
        dtaken = self.affine_back.times(self.dgates[t])
        self.dhidden = dtaken[..., -self.H :]
        return dtaken[..., : -self.H]

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Those of the weight and the bias."""
        weight = weight_gradients(self.all_dgates, self.all_taken[:-1]).to(self.raw.dtype)
        return self._last_gate(weight, 4), self._last_gate(self.dbias, 4)


class _Recurrence(torch.autograd.Function):
    """`attend` with the steps first, (T, M, B, …), and every weight an argument of its own."""

    @staticmethod
    def forward(
        ctx: Any,
        dtype: torch.dtype,
        learns: bool,
        looks: LooksMaker,
        keep: tuple[Tensor | None, ...],
        clips: Windows,
        hidden: Tensor,
        cell: Tensor,
        count: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        T = clips.steps
        weights, ctx.looks = tensors[:count], looks(clips, dtype, *tensors[count:])
        ctx.layers = [
            _Layer(dtype, T if learns else 1, weight, bias, *state)
            for weight, bias, *state in zip(weights[::2], weights[1::2], hidden, cell, strict=True)
        ]
        ctx.X = [frames.unbind(1) for frames in clips.over(clips.frames)]
        ctx.keep = [None if kept is None else kept.unbind() for kept in keep]
        _, M, B, H = hidden.shape
        tops, maps = hidden.new_empty(T, M, B, H), hidden.new_empty(T, M, B, clips.frames.shape[1])
        top = ctx.layers[-1]
        for t, (seen, state) in enumerate(zip(maps.unbind(), tops.unbind(), strict=True)):
            seen.copy_(ctx.looks.look(t, _at(top.hidden, t)))
            below = _times(seen, [x[t] for x in ctx.X])  # the glimpse
            for layer, kept in zip(ctx.layers, ctx.keep, strict=True):
                _drop(below, kept and kept[t], _at(layer.inputs, t))
                below = layer.step(t)
            state.copy_(below)
        ctx.save_for_backward(maps)
        return tops, maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtops: Tensor, dmaps: Tensor) -> tuple[Any, ...]:
        (maps,) = ctx.saved_tensors
        X, keep, layers, looks = ctx.X, ctx.keep, ctx.layers, ctx.looks
        top = layers[-1]
        for part in (looks, *layers):
            part.start_back()
        for t in reversed(range(len(maps))):
            dbelow = dtops[t]
            for layer, kept in zip(reversed(layers), reversed(keep), strict=True):
                dbelow = layer.step_back(t, torch.add(dbelow, layer.dhidden).to(maps.dtype))
                dbelow = dbelow if kept is None else dbelow * kept[t]
            dmap = _times(dbelow, [x[t].mT for x in X])
            top.dhidden = top.dhidden + looks.back(t, top.hidden[t], maps[t], dmap + dmaps[t])
        weights = [tensor for layer in layers for tensor in layer.gradients()]
        dhidden = torch.stack([layer.dhidden.to(maps.dtype) for layer in layers])
        dcell = torch.stack([layer.dcell for layer in layers])
        attention = looks.gradients(top.all_taken[:-1, ..., -top.H :])
        return None, None, None, None, None, dhidden, dcell, None, *weights, *attention


def _drop(values: Tensor, kept: Tensor | None, out: Tensor) -> None:
    """The values, some of which are dropped."""
    if kept is not None and values.dtype == out.dtype:
        torch.mul(values, kept, out=out)
    else:
        out.copy_(values)
        if kept is not None:
            out.mul_(kept)


Kept = TypeVar("Kept")


def _at(kept: Sequence[Kept], t: int) -> Kept:
    """What was kept of step t; where not all steps are kept, they take turns."""
    return kept[t % len(kept)]


def _times(rows: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """The rows (M, B, K) times each clip's matrix (K, N), of which every part has some: (M, B, N).

    A clip's matrix is read once for the rows of all models.
    """
    some = torch.split(rows.to(parts[0].dtype).transpose(0, 1), [len(part) for part in parts])
    products = [torch.bmm(row, part) for row, part in zip(some, parts, strict=True)]
    whole = torch.cat(products) if len(products) > 1 else products[0]
    return whole.transpose(0, 1)
