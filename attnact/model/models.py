"""The models: the soft-attention LSTM, and the baselines of the paper's Table 1 beside it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from attnact.cache.features import CHANNELS, LOCATIONS
from attnact.model.attention import ContextAttention, LocationAttention
from attnact.model.dropout import Dropout
from attnact.model.layers import Head, LSTMLayer, StartState, frame_means
from attnact.model.products import product_type
from attnact.model.recurrence import attend
from attnact.model.windows import Windows
from attnact.vocabulary import AttentionForm, DropoutForm, ModelKind


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model; stored with its weights.

    dropout_form: "paper" drops every non-recurrent connection and scales what is left;
        "released" drops only before and inside the head, and halves at test instead.
    start_layers, head_layers, head_size, inverse_temperature: the released code's `n_layers_init`,
        `n_layers_out`, `dim_out` (0: the hidden size) and `temperature_inverse`. Only imported
        models have others than these.
    """

    classes: int
    kind: ModelKind = "attention"
    attention: AttentionForm = "location"
    attention_layers: int = 1
    lstm_layers: int = 3
    hidden_size: int = 512
    dropout: float = 0.5
    dropout_form: DropoutForm = "paper"
    start_layers: int = 1
    head_layers: int = 1
    head_size: int = 0
    inverse_temperature: float = 1.0
    locations: int = LOCATIONS
    channels: int = CHANNELS


class Model(nn.Module, ABC):
    """Feature cubes of clips → class scores at every step, and where it looked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, X: Tensor | Windows, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores before softmax or sigmoid (B, T, N); attention maps (B, T, L), or None.

        Args:
            X: feature cubes (B, T, L, C), or clips that share frames.
            mask: 1 for a frame, 0 for a repeat that fills up a short clip, (B, T).
        """


class AttentionLSTM(Model):
    """Looks at each frame once, where its last state tells it to (section 3).

    The state starts from the mean feature cube; at each step the top layer's state makes the
    attention map, the map's glimpse Σ_i l_ti X_ti (eq. 5) feeds the stacked LSTM, and a tanh head
    reads the classes from the top layer.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        H, C = config.hidden_size, config.channels
        self.attention: LocationAttention | ContextAttention
        if config.attention == "location":
            self.attention = LocationAttention(H, config.locations)
        else:
            sharpness = config.inverse_temperature
            self.attention = ContextAttention(C, H, config.attention_layers, sharpness)
        self.start = _start(config)
        self.layers = nn.ModuleList(
            LSTMLayer(H if layer else C, H) for layer in range(config.lstm_layers)
        )
        self.head = _head(config)
        self.dropout = _between(config)

    def forward(self, X: Tensor | Windows, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and attention maps; see `Model.forward`."""
        clips = windows_of(X)
        hidden, cell, seen = self.before(clips, means_of(clips, self.head), mask)
        looks = self.attention.looks
        tops, maps = attend(clips, hidden, cell, self.gates(), self.keep(clips), looks, seen)
        return self.head(tops), maps

    def before(
        self, clips: Windows, means: Tensor, mask: Tensor
    ) -> tuple[list[Tensor], list[Tensor], tuple[Tensor, ...]]:
        """The first hidden and cell states, (B, H) a layer, and what of the attention looks."""
        return *self.start(means, mask), self.attention.tensors(clips)

    def gates(self) -> list[tuple[Tensor, Tensor]]:
        """The weight and the bias of each layer."""
        layers = cast("Iterable[LSTMLayer]", self.layers)
        return [(layer.gates.weight, layer.gates.bias) for layer in layers]

    def keep(self, clips: Windows) -> list[Tensor | None]:
        """What each layer's input is multiplied by, (T, B, inputs): dropout."""
        inputs = [self.config.channels] + [self.config.hidden_size] * (len(self.layers) - 1)
        shapes = [(clips.steps, len(clips), size) for size in inputs]
        weight = self.head.classes.weight
        like = weight.detach()[:1].to(product_type(weight))
        return [self.dropout.keep(shape, like, 1) for shape in shapes]


class PooledLSTM(Model):
    """The same without attention: each frame's mean or maximum over the locations (a baseline)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        H, C = config.hidden_size, config.channels
        self.start = _start(config)
        self.layers = nn.ModuleList(
            nn.LSTM(H if layer else C, H, batch_first=True) for layer in range(config.lstm_layers)
        )
        self.head = _head(config)
        self.dropout = _between(config)

    def forward(self, X: Tensor | Windows, mask: Tensor) -> tuple[Tensor, None]:
        """Scores and no maps; see `Model.forward`."""
        clips = windows_of(X)
        means = means_of(clips, self.head)
        hidden, cell = self.start(means, mask)
        seen = means if self.config.kind == "average" else clips.gather(clips.frames.amax(1))
        for i, layer in enumerate(self.layers):
            seen, _ = layer(self.dropout(seen), (hidden[i][None], cell[i][None]))
        return self.head(seen), None


class SoftmaxRegression(Model):
    """Classes from the whole 7×7×1024 cube of each frame alone (a baseline)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.classes = nn.Linear(config.locations * config.channels, config.classes)

    def forward(self, X: Tensor | Windows, mask: Tensor) -> tuple[Tensor, None]:
        """Scores and no maps; see `Model.forward`."""
        clips = windows_of(X)
        return clips.gather(self.classes(clips.frames.flatten(1))), None


def windows_of(X: Tensor | Windows) -> Windows:
    """Clips (B, T, L, C) as windows, which the others are already."""
    return X if isinstance(X, Windows) else Windows.of(X)


def means_of(clips: Windows, head: Head) -> Tensor:
    """The mean of each frame of the clips over its locations, (B, T, C), in the type of a head."""
    known, dtype = clips.means, head.classes.weight.dtype
    return clips.gather(frame_means(clips.frames, dtype) if known is None else known.to(dtype))


def with_means(X: Tensor | Windows) -> Windows:
    """Clips whose frames' means are made once, for all models that are given them."""
    clips = windows_of(X)
    if clips.means is None:
        clips.means = frame_means(clips.frames, torch.float32)
    return clips


def build_model(config: ModelConfig) -> Model:
    """The untrained model of this shape; its weights come from torch's global seed."""
    if config.kind == "attention":
        return AttentionLSTM(config)
    return SoftmaxRegression(config) if config.kind == "softmax" else PooledLSTM(config)


def _start(config: ModelConfig) -> StartState:
    dropout = Dropout(config.dropout, config.dropout_form)
    size = config.channels, config.hidden_size, config.lstm_layers
    return StartState(*size, config.start_layers, dropout)


def _head(config: ModelConfig) -> Head:
    dropout = Dropout(config.dropout, config.dropout_form)
    size = config.hidden_size, config.head_size or config.hidden_size, config.classes
    return Head(*size, config.head_layers, dropout)


def _between(config: ModelConfig) -> Dropout:
    """Before and between the LSTM layers, where the released code has none."""
    released = config.dropout_form == "released"
    return Dropout(0 if released else config.dropout, config.dropout_form)
