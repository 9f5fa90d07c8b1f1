"""The soft-attention LSTM: looks at each frame once, where its last state tells it to."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnact.attention import ContextAttention, LocationAttention
from attnact.features import CHANNELS, LOCATIONS
from attnact.vocabulary import AttentionForm, DropoutForm


@dataclass(frozen=True)
class ModelConfig:
    """The shape of an `AttentionLSTM`; stored with its weights.

    dropout_form: "paper" drops every non-recurrent connection and scales what is left;
        "released" drops only before and inside the head, and halves at test instead.
    """

    classes: int
    attention: AttentionForm = "location"
    attention_layers: int = 1
    lstm_layers: int = 3
    hidden_size: int = 512
    dropout: float = 0.5
    dropout_form: DropoutForm = "paper"
    locations: int = LOCATIONS
    channels: int = CHANNELS


class AttentionLSTM(nn.Module):
    """Feature cubes of clips → class scores at every step, and where it looked (section 3).

    The state starts from the mean feature cube; at each step the top layer's state makes the
    attention map, the map's glimpse Σ_i l_ti X_ti feeds the stacked LSTM, and a tanh head reads
    the classes from the top layer.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        H, C = config.hidden_size, config.channels
        self.attention: LocationAttention | ContextAttention
        if config.attention == "location":
            self.attention = LocationAttention(H, config.locations)
        else:
            self.attention = ContextAttention(C, H, config.attention_layers)
        layers = range(config.lstm_layers)
        self.start_hidden = nn.ModuleList(nn.Linear(C, H) for _ in layers)
        self.start_cell = nn.ModuleList(nn.Linear(C, H) for _ in layers)
        self.layers = nn.ModuleList(LSTMLayer(H if layer else C, H) for layer in layers)
        self.head = nn.Linear(H, H)
        self.classes = nn.Linear(H, config.classes)

    def forward(self, X: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before softmax or sigmoid (B, T, N), and attention maps (B, T, L).

        Args:
            X: feature cubes (B, T, L, C).
            mask: 1 for a frame, 0 for a repeat that fills up a short clip, (B, T).
        """
        mean = masked_mean(X, mask)
        hidden = [torch.tanh(start(mean)) for start in self.start_hidden]
        cell = [torch.tanh(start(mean)) for start in self.start_cell]
        projected = self.attention.project(X)
        maps, tops = [], []
        for t in range(X.shape[1]):
            looks = self.attention(hidden[-1], projected[:, t])
            # bmm, because (looks * X).sum would write and read all of X once more.
            below = torch.bmm(looks[:, None], X[:, t])[:, 0]
            for i, layer in enumerate(self.layers):
                hidden[i], cell[i] = layer(self._drop_below(below), hidden[i], cell[i])
                below = hidden[i]
            maps.append(looks)
            tops.append(below)
        seen = self._drop_head(torch.stack(tops, dim=1))
        scores = self.classes(self._drop_head(torch.tanh(self.head(seen))))
        return scores, torch.stack(maps, dim=1)

    def _drop_below(self, x: Tensor) -> Tensor:
        if self.config.dropout_form == "released":
            return x
        return F.dropout(x, self.config.dropout, self.training)

    def _drop_head(self, x: Tensor) -> Tensor:
        if self.config.dropout_form == "paper":
            return F.dropout(x, self.config.dropout, self.training)
        keep = 1 - self.config.dropout
        # Undoes torch's scaling in training, and scales in testing instead.
        return keep * F.dropout(x, self.config.dropout, self.training)


class LSTMLayer(nn.Module):
    """One step of an LSTM layer, eq. 1–3; the gates stand in the order i, f, o, g."""

    def __init__(self, inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden_size, 4 * hidden_size)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The next hidden state and cell state, (B, H) each, for the input x."""
        H = hidden.shape[1]
        gates = self.gates(torch.cat((x, hidden), dim=1))  # one product for both
        i, f, o = torch.sigmoid(gates[:, : 3 * H]).chunk(3, dim=1)
        cell = f * cell + i * torch.tanh(gates[:, 3 * H :])
        return o * torch.tanh(cell), cell


def masked_mean(X: Tensor, mask: Tensor) -> Tensor:
    """The mean of X over its valid frames and all locations, (B, C).

    As a product with the weights of the mean, which is 20 times faster than `X.mean((1, 2))` on a
    CPU.
    """
    B, T, L, C = X.shape
    weights = (mask / (L * mask.sum(dim=1, keepdim=True))).to(X.dtype)
    return torch.bmm(weights.repeat_interleave(L, dim=1)[:, None], X.reshape(B, T * L, C))[:, 0]
