"""The recurrence of the attention LSTM: T steps, and their backward pass written out.

Look, glimpse, LSTM layers, a step after the other (section 3 of the paper). Autograd would keep
what every small operation made, and add to the weights' gradients at every step. Here X is read in
its own type, once in each direction; a layer's input and state lie side by side where its product
reads them, a column a clip, which the products of a CPU are fastest with; and its weights' gradient
is made of all steps at the end. Products run in the type of `torch.autocast` where that is on,
everything else in the type of the weights.

Models of one shape go through the same clips side by side, M of them: X is read once for all.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnact.attention import LooksMaker, turned, weight_gradients
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
        keep: what each layer's input is multiplied by in every model, (T, inputs, B): dropout.
        looks, looks_tensors: the form of attention, and its tensors, (M, …).
    """
    weights = [tensor for layer in layers for tensor in layer]
    wide, device = weights[0].dtype, clips.frames.device.type
    autocast = torch.is_autocast_enabled(device) and wide == torch.float32
    dtype = torch.get_autocast_dtype(device) if autocast else wide
    start = torch.stack(tuple(hidden)).to(wide), torch.stack(tuple(cell)).to(wide)
    learns = torch.is_grad_enabled()
    with torch.autocast(device, enabled=False):
        tops, maps = _Recurrence.apply(  # type: ignore[no-untyped-call]
            dtype, learns, looks, tuple(keep), clips, *start, len(weights), *weights, *looks_tensors
        )
    return tops.permute(0, 3, 1, 2), maps.transpose(1, 2)


class _Layer:
    """An LSTM layer during one batch, and what it keeps.

    To learn, all T steps; else T is 1 and the steps take turns, in what a processor's cache holds.

    taken: the input and the last hidden state, as the product takes them,
        (M, T + 1, inputs + H, B).
    gates: i, f, o, g after their sigmoids and tanh, (M, T, 4H, B).
    cells: the cell states, (M, T + 1, H, B); squashed: their tanh, (M, T, H, B).
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
        self.weight, self.bias = weight.to(dtype), bias[..., None]
        M, B, self.H = hidden.shape
        self.taken = weight.new_empty(M, steps + 1, weight.shape[2], B, dtype=dtype)
        self.gates = weight.new_empty(M, steps, 4 * self.H, B)
        self.cells = weight.new_empty(M, steps + 1, self.H, B)
        self.squashed = weight.new_empty(M, steps, self.H, B)
        self.hidden(0).copy_(hidden.mT)
        self.cells[:, 0] = cell.mT

    def hidden(self, t: int) -> Tensor:
        """The hidden state before frame t, (M, H, B)."""
        return _at(self.taken, t)[:, -self.H :]

    def input(self, t: int) -> Tensor:
        """The layer's input at frame t, (M, inputs, B), to be filled in."""
        return _at(self.taken, t)[:, : -self.H]

    def step(self, t: int) -> Tensor:
        """From `input(t)` and `hidden(t)` to `hidden(t + 1)`, which it gives (eq. 1–3)."""
        H, taken, gates = self.H, _at(self.taken, t), _at(self.gates, t)
        cell, squashed = _at(self.cells, t + 1), _at(self.squashed, t)
        if gates.dtype == taken.dtype and len(gates) == 1:  # many times a second: no copies
            torch.addmm(self.bias[0], self.weight[0], taken[0], out=gates[0])
        else:
            torch.add(product(self.weight, taken), self.bias, out=gates)
        gates[:, : 3 * H].sigmoid_()
        gates[:, 3 * H :].tanh_()
        i, f, o, g = gates.chunk(4, dim=1)
        torch.mul(f, _at(self.cells, t), out=cell).addcmul_(i, g)
        torch.tanh(cell, out=squashed)
        return self.hidden(t + 1).copy_(o * squashed)

    def start_back(self) -> None:
        """Makes room for the gradients; those of the gates before sigmoid and tanh take over."""
        self.dcell = torch.zeros_like(self.cells[:, 0])
        self.dhidden = torch.zeros_like(self.dcell)  # through the next step of this layer
        self.dgates = self.taken.new_empty(self.gates.shape)
        self.dbias = self.gates.new_zeros(len(self.gates), 4 * self.H)
        self.turned = turned(self.weight)  # a CPU's products with a view are slower

    def step_back(self, t: int, dhidden: Tensor) -> Tensor:
        """From the gradient of `hidden(t + 1)`, (M, H, B), to that of `input(t)`."""
        H, gates, squashed = self.H, self.gates[:, t], self.squashed[:, t]
        i, f, o, g = gates.chunk(4, dim=1)
        through = torch.mul(dhidden, o)
        self.dcell += torch.ops.aten.tanh_backward(through, squashed)
        same = gates.dtype == self.dgates.dtype
        raw = self.dgates[:, t] if same else torch.empty_like(gates)
        torch.mul(self.dcell, g, out=raw[:, :H])
        torch.mul(self.dcell, self.cells[:, t], out=raw[:, H : 2 * H])
        torch.mul(dhidden, squashed, out=raw[:, 2 * H : 3 * H])
        torch.mul(self.dcell, i, out=raw[:, 3 * H :])
        self.dcell *= f
        sigmoids, tanhs = raw[:, : 3 * H], raw[:, 3 * H :]
        torch.ops.aten.sigmoid_backward(sigmoids, gates[:, : 3 * H], grad_input=sigmoids)
        torch.ops.aten.tanh_backward(tanhs, g, grad_input=tanhs)
        if not same:
            self.dgates[:, t] = raw
        self.dbias += raw.sum(2)
        dtaken = product(self.turned, self.dgates[:, t])
        self.dhidden = dtaken[:, -H:].to(raw.dtype)
        return dtaken[:, :-H]

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Those of the weight and the bias."""
        return weight_gradients(self.dgates, self.taken[:, :-1]).to(self.dbias.dtype), self.dbias


class _Recurrence(torch.autograd.Function):
    """`attend` with the steps first, (M, T, B, …), and every weight an argument of its own."""

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
        ctx.X, ctx.keep = clips.over(clips.frames), keep
        _, M, B, H = hidden.shape
        tops, maps = hidden.new_empty(M, T, H, B), hidden.new_empty(M, T, B, clips.frames.shape[1])
        top = ctx.layers[-1]
        for t in range(T):
            maps[:, t] = ctx.looks.look(t, top.hidden(t))
            below = turned(_times(maps[:, t], [x[:, t] for x in ctx.X]))  # the glimpse
            for layer, kept in zip(ctx.layers, keep, strict=True):
                layer.input(t).copy_(below if kept is None else below * kept[t])
                below = layer.step(t)
            tops[:, t] = below
        ctx.save_for_backward(maps)
        return tops, maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtops: Tensor, dmaps: Tensor) -> tuple[Any, ...]:
        (maps,) = ctx.saved_tensors
        X, keep, layers, looks = ctx.X, ctx.keep, ctx.layers, ctx.looks
        top, dtops = layers[-1], dtops.contiguous()
        for part in (looks, *layers):
            part.start_back()
        for t in reversed(range(maps.shape[1])):
            dbelow = dtops[:, t]
            for layer, kept in zip(reversed(layers), reversed(keep), strict=True):
                dbelow = layer.step_back(t, dbelow + layer.dhidden)
                dbelow = dbelow.to(maps.dtype) if kept is None else dbelow * kept[t]
            dmap = _times(turned(dbelow), [x[:, t].mT for x in X])
            top.dhidden += looks.back(t, top.hidden(t), maps[:, t], dmap + dmaps[:, t])
        weights = [tensor for layer in layers for tensor in layer.gradients()]
        dhidden = torch.stack([layer.dhidden.mT for layer in layers])
        dcell = torch.stack([layer.dcell.mT for layer in layers])
        attention = looks.gradients(top.taken[:, :-1, -top.H :])
        return None, None, None, None, None, dhidden, dcell, None, *weights, *attention


def _at(kept: Tensor, t: int) -> Tensor:
    """What was kept of step t, (M, …); where not all steps are kept, they take turns."""
    return kept[:, t % kept.shape[1]]


def _times(rows: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """The rows (M, B, K) times each clip's matrix (K, N), of which every part has some: (M, B, N).

    A clip's matrix is read once for the rows of all models.
    """
    some = torch.split(rows.to(parts[0].dtype).transpose(0, 1), [len(part) for part in parts])
    products = [torch.bmm(row, part) for row, part in zip(some, parts, strict=True)]
    whole = torch.cat(products) if len(products) > 1 else products[0]
    return whole.transpose(0, 1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Each model's matrix (M, I, K) times its other (M, K, J), (M, I, J).

    A CPU multiplies two matrices faster than stacks of one.
    """
    return torch.mm(a[0], b[0])[None] if len(a) == 1 else torch.bmm(a, b)
