"""The recurrence of the attention LSTM: T steps, and their backward pass written out.

Look, glimpse, LSTM layers, a step after the other (section 3 of the paper). Autograd would keep
what every small operation made, and add to the weights' gradients at every step. Here X is read in
its own type, once in each direction; a layer's input and state lie side by side where its product
reads them, a row a clip; and its weights' gradient is made of all steps at the end. Products run in
the type of `torch.autocast` where that is on, everything else in the type of the weights.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from attnact.model.attention import LooksMaker, softmax_back
from attnact.model.fused import fuses, glimpse, glimpse_back
from attnact.model.lstm import at, drop, layer_class
from attnact.model.products import product_type
from attnact.model.windows import Windows


def attend(
    clips: Windows,
    hidden: Sequence[Tensor],
    cell: Sequence[Tensor],
    layers: Sequence[tuple[Tensor, Tensor]],
    keep: Sequence[Tensor | None],
    looks: LooksMaker,
    looks_tensors: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """The top layer's hidden states (B, T, H) and the attention maps (B, T, L).

    Args:
        clips: the feature cubes, of any float; they get no gradient.
        hidden, cell: the state of each layer before the first frame, (B, H).
        layers: the weight (4H, inputs + H) and bias (4H,) of each layer's gates i, f, o, g, which
            take the layer's input and its last hidden state.
        keep: what each layer's input is multiplied by, (T, B, inputs): dropout.
        looks, looks_tensors: the form of attention, and its tensors.
    """
    weights = [tensor for layer in layers for tensor in layer]
    wide, device = weights[0].dtype, weights[0].device.type
    dtype = product_type(weights[0])
    start = torch.stack(tuple(hidden)).to(wide), torch.stack(tuple(cell)).to(wide)
    learns = torch.is_grad_enabled()
    with torch.autocast(device, enabled=False):
        tops, maps = _Recurrence.apply(  # type: ignore[no-untyped-call]
            dtype, learns, looks, tuple(keep), clips, *start, len(weights), *weights, *looks_tensors
        )
    return tops.transpose(0, 1), maps.transpose(0, 1)


class _Recurrence(torch.autograd.Function):
    """`attend` with the steps first, (T, B, …), and every weight an argument of its own."""

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
        new_layer = layer_class(hidden)
        ctx.layers = [
            new_layer(dtype, T if learns else 1, weight, bias, *state)
            for weight, bias, *state in zip(weights[::2], weights[1::2], hidden, cell, strict=True)
        ]
        ctx.keep = [None if kept is None else kept.unbind() for kept in keep]
        _, B, H = hidden.shape
        tops, maps = hidden.new_empty(T, B, H), hidden.new_empty(T, B, clips.locations)
        ctx.glimpses, top = _Glimpses(clips, maps), ctx.layers[-1]
        for t, (seen, state) in enumerate(zip(maps.unbind(), tops.unbind(), strict=True)):
            ctx.looks.look(t, at(top.hidden, t), seen)
            kept = [kept and kept[t] for kept in ctx.keep]
            inputs = [at(layer.inputs, t) for layer in ctx.layers]
            ctx.glimpses.see(t, seen, kept[0], inputs[0])
            for layer, drops, out in zip(
                ctx.layers, [*kept[1:], None], [*inputs[1:], state], strict=True
            ):
                layer.step(t, drops, out)
        ctx.save_for_backward(maps)
        return tops, maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtops: Tensor, dmaps: Tensor) -> tuple[Any, ...]:
        (maps,) = ctx.saved_tensors
        keep, layers, looks, dmaps = ctx.keep, ctx.layers, ctx.looks, dmaps.contiguous()
        top = layers[-1]
        for part in (looks, *layers):
            part.start_back()
        for t in reversed(range(len(maps))):
            below, kept = dtops[t], None  # the gradient of what was made of a layer, and dropped
            for layer, drops in zip(reversed(layers), reversed(keep), strict=True):
                below, kept = layer.step_back(t, below, kept), drops and drops[t]
            ctx.glimpses.back(t, below, kept, maps[t], dmaps[t], looks.draws[t])
            looks.back(t, top.hidden[t], top.dhidden)
        weights = [tensor for layer in layers for tensor in layer.gradients()]
        dhidden = torch.stack([layer.dhidden.to(maps.dtype) for layer in layers])
        dcell = torch.stack([layer.dcell for layer in layers])
        attention = looks.gradients(top.all_taken[:-1, ..., -top.H :])
        return None, None, None, None, None, dhidden, dcell, None, *weights, *attention


class _Glimpses:
    """What is seen of each frame, Σ_l maps_l X_l (eq. 5), and the way back to before the softmax.

    A GPU has a kernel of its own for either, with the dropout after it. On a CPU, where clips share
    frames, what is seen is a sum of embeddings, the locations of all frames being their table: that
    reads X as fast as memory gives it, and a product with one row at half the rate.
    """

    def __init__(self, clips: Windows, maps: Tensor) -> None:
        self.clips = clips
        self.fused = maps.dtype == torch.float32 and fuses(maps.device) and clips.in_a_row
        self.rows: tuple[Tensor, ...] = ()  # of the table, (B, L) a step
        if maps.device.type == "cpu" and clips.overlap:
            L = clips.locations
            rows = torch.arange(L * len(clips.frames)).view(-1, L)
            self.table = clips.frames.flatten(0, 1)
            self.rows = clips.gather(rows).unbind(1)

    def see(self, t: int, maps: Tensor, kept: Tensor | None, out: Tensor) -> None:
        """Writes the glimpses of frame t, (B, C), less what is dropped."""
        if self.fused:
            (X,) = self.clips.at(t)
            glimpse(maps, X, kept, out)
        elif self.rows:
            shares = maps.to(self.table.dtype)
            seen = embedding_bag(self.rows[t], self.table, mode="sum", per_sample_weights=shares)
            drop(seen, kept, out)
        else:
            drop(self._times(maps, self.clips.at(t)), kept, out)

    def back(
        self,
        t: int,
        above: Tensor,
        kept: Tensor | None,
        maps: Tensor,
        dmaps: Tensor,
        draw: Tensor,
    ) -> None:
        """From the gradient of what `see` wrote to that of what the softmax made the maps of.

        dmaps: the rest of the maps' gradient. draw: where it is written, of any float.
        """
        if self.fused:
            (X,) = self.clips.at(t)
            glimpse_back(above, kept, X, maps, dmaps, draw)
        else:
            dglimpses = above if kept is None else above * kept
            dmaps = self._times(dglimpses, (x.mT for x in self.clips.at(t))) + dmaps
            draw.copy_(softmax_back(maps, dmaps))

    def _times(self, rows: Tensor, parts: Iterable[Tensor]) -> Tensor:
        """The rows (B, K) times each clip's matrix (K, N), of which every part has some: (B, N)."""
        rows, products, done = rows[:, None], [], 0
        for part in parts:
            some = rows[done : done + len(part)].to(part.dtype)
            products.append(torch.bmm(some, part))
            done += len(part)
        whole = torch.cat(products) if len(products) > 1 else products[0]
        return whole[:, 0]
