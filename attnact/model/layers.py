"""What the models are built of: the first state, the weights of the LSTM, the head."""

from typing import cast

import torch
from torch import Tensor, nn

from attnact.model.dropout import Dropout
from attnact.model.fused import fuses, glimpse
from attnact.model.products import affine


class StartState(nn.Module):
    """The state before the first frame: tanh(affine(mean feature cube)), eq. 6, a pair a layer.

    With `depth` > 1 further affine layers with ReLU and dropout come first, as `n_layers_init` of
    the released code has them.
    """

    def __init__(
        self, channels: int, hidden_size: int, lstm_layers: int, depth: int, dropout: Dropout
    ) -> None:
        super().__init__()
        self.deeper = nn.ModuleList(nn.Linear(channels, channels) for _ in range(depth - 1))
        self.dropout = dropout
        layers = range(lstm_layers)
        self.hidden = nn.ModuleList(nn.Linear(channels, hidden_size) for _ in layers)
        self.cell = nn.ModuleList(nn.Linear(channels, hidden_size) for _ in layers)

    def forward(self, means: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The hidden and cell states of every layer, (B, H) each.

        means: of each frame over its locations, (B, T, C).
        mask: 1 for a frame, 0 for a repeat that fills up a short clip, (B, T).
        """
        # `einsum` takes the frames as columns, and on a CPU ten times as long.
        mean = torch.bmm(mask[:, None].to(means.dtype), means)[:, 0]
        mean = mean / mask.sum(dim=1, keepdim=True).to(mean.dtype)
        for layer in self.deeper:
            mean = self.dropout(torch.relu(layer(mean)))
        last = cast("list[nn.Linear]", [*self.hidden, *self.cell])
        # As one product: each by itself would be small.
        weight, bias = torch.cat([it.weight for it in last]), torch.cat([it.bias for it in last])
        states = affine(mean, weight, bias, "tanh").chunk(len(last), dim=1)
        return list(states[: len(self.hidden)]), list(states[len(self.hidden) :])


class LSTMLayer(nn.Module):
    """The weights of an LSTM layer, eq. 1-3: of its input and its last hidden state together.

    The gates stand in the order i, f, o, g. `recurrence.attend` computes with them.
    """

    def __init__(self, inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden_size, 4 * hidden_size)


class Head(nn.Module):
    """Classes from the hidden state: affine → tanh → affine, with dropout before each.

    With `depth` > 1 further affine layers with ReLU and dropout come before the last, as
    `n_layers_out` of the released code has them.
    """

    def __init__(
        self, hidden_size: int, size: int, classes: int, depth: int, dropout: Dropout
    ) -> None:
        super().__init__()
        self.first = nn.Linear(hidden_size, size)
        self.deeper = nn.ModuleList(nn.Linear(size, size) for _ in range(depth - 1))
        self.classes = nn.Linear(size, classes)
        self.dropout = dropout

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores before softmax or sigmoid, (B, T, N), for hidden states (B, T, H)."""
        seen = affine(self.dropout(hidden), self.first.weight, self.first.bias, "tanh")
        seen = self.dropout(seen)
        for layer in self.deeper:
            seen = self.dropout(torch.relu(layer(seen)))
        return affine(seen, self.classes.weight, self.classes.bias)


def frame_means(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """The mean of each frame's features over the locations, (n, C), for frames (n, L, C).

    As a product, which is 20 times faster than `frames.mean(1)` on a CPU; a GPU has a kernel, which
    does not round to the type of the frames.
    """
    n, L, C = frames.shape
    if dtype == torch.float32 and fuses(frames.device):
        means = frames.new_empty(n, C, dtype=dtype)
        glimpse(means.new_full((n, L), 1 / L), frames, None, means)
        return means
    with torch.autocast(frames.device.type, enabled=False):  # it would copy all frames first
        weights = frames.new_full((1, 1, L), 1 / L).expand(n, 1, L)
        return torch.bmm(weights, frames)[:, 0].to(dtype)
