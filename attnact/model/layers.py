"""What the models are built of: the first state, the weights of the LSTM, the head, dropout."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from attnact.machine.streams import handed_on
from attnact.model.fused import fuses, glimpse
from attnact.model.products import affine
from attnact.vocabulary import DropoutForm


class Dropout(nn.Module):
    """Dropout that scales up what is left in training ("paper"), or halves in testing ("released").

    With a share of 0.5 both mean the same in expectation; the released code's `dropout_layer` does
    the second.
    """

    def __init__(self, share: float, form: DropoutForm) -> None:
        super().__init__()
        self.share, self.form = share, form

    def forward(self, x: Tensor) -> Tensor:
        """Some of x set to zero while training."""
        if self.form == "released" and not self.training:
            return (1 - self.share) * x
        keep = self.keep(x.shape, x)
        return x if keep is None else x * keep

    def keep(self, shape: Sequence[int], like: Tensor, clips: int = 0) -> Tensor | None:
        """What to multiply by while training: 0 for what is dropped; None where nothing is.

        `clips` is the dimension of the shape that stands for the clips of the batch.
        """
        if not self.training or not self.share:
            return None
        # A byte is enough for a half; for a tenth it would be off by one in sixty.
        kind = torch.int8 if (256 * self.share).is_integer() else torch.int16
        least: int = torch.iinfo(kind).min + round(self.share * 2 ** torch.iinfo(kind).bits)
        kept = _draw_own(shape, clips, kind, like.device) >= least
        return kept.to(like.dtype).mul_(1 / (1 - self.share) if self.form == "paper" else 1)


def draw(shape: Sequence[int], kind: torch.dtype, device: torch.device) -> Tensor:
    """Random integers of this kind, each value as likely as any other: parts of a random int64.

    Ten times as fast as a float for each on a CPU, where dropout's numbers took a sixth of a step.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count * kind.itemsize // 8), dtype=torch.int64, device=device)
    return words.random_(-(2**63), None).view(kind)[:count].view(shape)


_rows: tuple[slice, int] | None = None


@contextmanager
def rows_of_batch(rows: slice, batch: int) -> Iterator[None]:
    """Inside, a model's clips are these of a batch of so many, and drop what they would there."""
    global _rows
    _rows = rows, batch
    try:
        yield
    finally:
        _rows = None


class Draws:
    """Numbers that several models drop by: the first one draws them, and all take the same."""

    def __init__(self) -> None:
        self._drawn: list[Callable[[], Tensor]] = []
        self._taken = 0  # by the model that takes now

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, a model's dropout takes them, one after the other from the first on."""
        global _shared
        _shared, self._taken = self, 0
        try:
            yield
        finally:
            _shared = None

    def next(self, make: Callable[[], Tensor]) -> Tensor:
        """The next numbers, which are made if no model has taken them yet."""
        if self._taken == len(self._drawn):
            self._drawn.append(handed_on(make()))
        self._taken += 1
        return self._drawn[self._taken - 1]()


_shared: Draws | None = None


def _draw_own(shape: Sequence[int], clips: int, kind: torch.dtype, device: torch.device) -> Tensor:
    def make() -> Tensor:
        return _draw_rows(shape, clips, kind, device)

    return make() if _shared is None else _shared.next(make)


def _draw_rows(shape: Sequence[int], clips: int, kind: torch.dtype, device: torch.device) -> Tensor:
    if _rows is None:
        return draw(shape, kind, device)
    rows, batch = _rows
    whole = draw((*shape[:clips], batch, *shape[clips + 1 :]), kind, device)
    return whole[(slice(None),) * clips + (rows,)]


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
        states = torch.tanh(affine(mean, weight, bias)).chunk(len(last), dim=1)
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
        seen = affine(self.dropout(hidden), self.first.weight, self.first.bias)
        seen = self.dropout(torch.tanh(seen))
        for layer in self.deeper:
            seen = self.dropout(torch.relu(layer(seen)))
        scores: Tensor = self.classes(seen)
        return scores


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
