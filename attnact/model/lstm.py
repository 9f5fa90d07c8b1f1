"""An LSTM layer during one batch, a step after the other and back again (eq. 1–3).

A module has the weights (`layers.py`); this has what it keeps of each step, and the backward
pass written out.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from attnact.model.attention import sigmoid_backward
from attnact.model.fused import fuses, lstm_step, lstm_step_back
from attnact.model.products import Weights, weight_gradients

Kept = TypeVar("Kept")


def at(kept: Sequence[Kept], t: int) -> Kept:
    """What was kept of step t; where not all steps are kept, they take turns."""
    return kept[t % len(kept)]


def drop(values: Tensor, kept: Tensor | None, out: Tensor) -> None:
    """The values, some of which are dropped."""
    if kept is not None and values.dtype == out.dtype:
        torch.mul(values, kept, out=out)
    else:
        out.copy_(values)
        if kept is not None:
            out.mul_(kept)


class Layer:
    """To learn, it keeps all T steps; else the last, and the steps take turns in what a processor's
    cache holds. A tanh is made and kept as σ(−2x), on a CPU in a sixth of the time: tanh x is
    1 − 2σ(−2x). So that one σ is of all gates, the weights of g are made −2 times as large.

    taken: the input and the last hidden state, side by side as the product takes them,
        (B, inputs + H); of one step more, as cells.
    gates: i, f, o after their sigmoids, and σ(−2x) for g, (B, 4H).
    cells: the cell states, (B, H); squashed: σ(−2x) of the next.
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
        B, self.H = hidden.shape
        self.weight, self.bias = weight.to(dtype), bias
        self.affine = self._affine()
        self.all_taken = self.weight.new_empty(steps + 1, B, weight.shape[1])
        self.taken = self.all_taken.unbind()
        inputs, states = self.all_taken.tensor_split([weight.shape[1] - self.H], dim=2)
        self.inputs, self.hidden = inputs.unbind(), states.unbind()
        self.cells = hidden.new_empty(steps + 1, B, self.H).unbind()
        self.gates: list[Tensor] = [hidden] * steps
        self.squashed: list[Tensor] = [hidden] * steps
        self.hidden[0].copy_(hidden)
        self.cells[0].copy_(cell)

    def _affine(self) -> Weights:
        return Weights(self._g_times(-2, self.weight), self._g_times(-2, self.bias))

    def _affine_back(self) -> Weights:
        # The slope of a tanh is 4 σ(−2x) (1 − σ(−2x)), and these have g's four.
        return Weights(self._g_times(4, self.weight).t())

    def _g_times(self, factor: float, gates: Tensor) -> Tensor:
        """Something of the gates, (4H, …), whose last is multiplied."""
        gates = gates.clone()
        gates[-self.H :] *= factor
        return gates

    def step(self, t: int, kept: Tensor | None, out: Tensor) -> None:
        """From the input and the hidden state of step t to the next hidden state.

        What of it is kept is written to `out`, (B, H) of any float, too.
        """
        gates = self.affine.sigmoids(at(self.taken, t))
        i, f, o, g = gates.chunk(4, dim=1)
        cell = torch.addcmul(i, i, g, value=-2, out=at(self.cells, t + 1))
        cell.addcmul_(f, at(self.cells, t))
        squashed = torch.mul(cell, -2).sigmoid_()
        place = t % len(self.gates)
        self.gates[place], self.squashed[place] = gates, squashed
        hidden = at(self.hidden, t + 1)
        if hidden.dtype == o.dtype:
            torch.addcmul(o, o, squashed, value=-2, out=hidden)
        else:
            hidden.copy_(torch.addcmul(o, o, squashed, value=-2))
        drop(hidden, kept, out)

    def start_back(self) -> None:
        """Makes room for the gradients; those of the gates before their sigmoids take over."""
        self.dcell = torch.zeros_like(self.cells[0])
        self.dhidden = torch.zeros_like(self.dcell)  # through the next step of this layer
        self.all_dgates = self.all_taken.new_empty(len(self.gates), *self.gates[0].shape)
        self.dgates = self.all_dgates.unbind()
        self.raw = torch.empty_like(self.gates[0])
        self.dbias = self.raw.new_zeros(4 * self.H)
        self.affine_back = self._affine_back()

    def step_back(self, t: int, above: Tensor, kept: Tensor | None) -> Tensor:
        """From the gradient of what was made of `hidden[t + 1]` to that of `inputs[t]`.

        above: (B, H), of the hidden state after dropout.
        kept: what was not dropped of it, (B, H).
        """
        self._gates_back(t, above, kept)
        dtaken = self.affine_back.times(self.dgates[t])
        self.dhidden = dtaken[..., -self.H :]
        return dtaken[..., : -self.H]

    def _gates_back(self, t: int, above: Tensor, kept: Tensor | None) -> None:
        above = above if kept is None else above * kept
        gates, squashed, dcell = self.gates[t], self.squashed[t], self.dcell
        dhidden = torch.add(above, self.dhidden).to(dcell.dtype)
        same = self.dgates[t].dtype == self.raw.dtype
        i, f, o, g = gates.chunk(4, dim=1)
        through = torch.mul(dhidden, o)
        dcell.add_(sigmoid_backward(through, squashed, grad_input=through), alpha=4)
        raw = self.dgates[t] if same else self.raw
        di, df, do, dg = raw.chunk(4, dim=1)
        torch.addcmul(dcell, dcell, g, value=-2, out=di)
        torch.mul(dcell, self.cells[t], out=df)
        torch.addcmul(dhidden, dhidden, squashed, value=-2, out=do)
        torch.mul(dcell, i, out=dg)
        dcell.mul_(f)
        sigmoid_backward(raw, gates, grad_input=raw)
        if not same:
            self.dgates[t].copy_(raw)
        self.dbias += raw.sum(0)

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Those of the weight and the bias."""
        weight, bias = self._weight_gradient(), self.dbias
        for gates in (weight, bias):
            gates[-self.H :] *= 4
        return weight, bias

    def _weight_gradient(self) -> Tensor:
        return weight_gradients(self.all_dgates, self.all_taken[:-1]).to(self.dcell.dtype)


class FusedLayer(Layer):
    """The same on a GPU, in one kernel a step beside the product, of the weights as they are."""

    def _affine(self) -> Weights:
        return Weights(self.weight)

    def _affine_back(self) -> Weights:
        return Weights(self.weight.t())

    def step(self, t: int, kept: Tensor | None, out: Tensor) -> None:
        """See `Layer`."""
        raw, hidden = self.affine.times(at(self.taken, t)), at(self.hidden, t + 1)
        cells = at(self.cells, t), at(self.cells, t + 1)
        self.gates[t % len(self.gates)] = lstm_step(raw, self.bias, *cells, hidden, kept, out)

    def _gates_back(self, t: int, above: Tensor, kept: Tensor | None) -> None:
        cells = self.cells[t], self.cells[t + 1]
        states = self.dhidden, self.gates[t], *cells, self.dcell
        lstm_step_back(above, kept, *states, self.dgates[t])

    def gradients(self) -> tuple[Tensor, Tensor]:
        """See `Layer`."""
        return self._weight_gradient(), self.all_dgates.sum((0, 1), dtype=self.bias.dtype)


def layer_class(state: Tensor) -> type[Layer]:
    """Which of the two takes states such as this one."""
    fused = state.dtype == torch.float32 and fuses(state.device)
    return FusedLayer if fused else Layer
