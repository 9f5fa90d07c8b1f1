"""The attention LSTM as one writes it first, for autograd to differentiate: the reference of the
recurrence's tests, and what its benchmark is held against."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnact.model.attention import ContextAttention, LocationAttention
from attnact.model.layers import Head
from attnact.model.models import AttentionLSTM


def plain_recurrence(
    model: AttentionLSTM, X: Tensor, keep: Sequence[Tensor | None] = ()
) -> tuple[Tensor, Tensor]:
    """The top layer's hidden states (B, T, H) and the attention maps (B, T, L).

    keep: what each layer's input is multiplied by at each step, (T, B, inputs).
    """
    hidden, cell = start(model, X)
    maps, tops = [], []
    for t in range(X.shape[1]):
        looks = plain_look(model.attention, hidden[-1], X[:, t])
        below = torch.einsum("bl,blc->bc", looks, X[:, t])
        for n, layer in enumerate(model.layers):
            below = below * keep[n][t] if keep and keep[n] is not None else below
            hidden[n], cell[n] = plain_step(layer.gates, below, hidden[n], cell[n])
            below = hidden[n]
        maps.append(looks)
        tops.append(below)
    return torch.stack(tops, dim=1), torch.stack(maps, dim=1)


def start(model: AttentionLSTM, X: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The states before the first frame, of clips whose every frame counts."""
    dtype, first = model.head.classes.weight.dtype, model.start
    mean = X.to(dtype).mean(2).mean(1)
    for layer in first.deeper:
        mean = first.dropout(torch.relu(layer(mean)))
    hidden, cell = (
        [torch.tanh(it(mean)) for it in layers] for layers in (first.hidden, first.cell)
    )
    return hidden, cell


def plain_head(head: Head, hidden: Tensor) -> Tensor:
    """The scores (B, T, N) by the hidden states (B, T, H)."""
    seen = head.dropout(torch.tanh(head.first(head.dropout(hidden))))
    for layer in head.deeper:
        seen = head.dropout(torch.relu(layer(seen)))
    scores: Tensor = head.classes(seen)
    return scores


def plain_look(
    attention: LocationAttention | ContextAttention, hidden: Tensor, x: Tensor
) -> Tensor:
    """The attention map (B, L) of one frame x (B, L, C)."""
    if isinstance(attention, LocationAttention):
        return torch.softmax(attention.scores(hidden), dim=-1)
    projected = attention.features(x)
    for n, layer in enumerate(attention.deeper):
        projected = layer(torch.tanh(projected) if n else projected)
    seen = torch.tanh(projected + attention.hidden(hidden)[:, None])
    return torch.softmax(attention.inverse_temperature * attention.scores(seen)[..., 0], dim=-1)


def plain_step(gates: nn.Module, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The next state of a layer whose gates are i, f, o, g."""
    i, f, o, g = gates(torch.cat((x, hidden), dim=1)).chunk(4, dim=1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell
