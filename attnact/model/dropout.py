"""Dropout, and the numbers that it drops by."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attnact.machine.streams import handed_on
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
        numbers = _numbers(shape, clips, kind, like.device) >= least
        return numbers.to(like.dtype).mul_(1 / (1 - self.share) if self.form == "paper" else 1)


class Numbers:
    """Random integers of a kind, each value as likely as any other: parts of random int64.

    Ten times as fast as a float for each on a CPU, where dropout's numbers took a sixth of a step.

    generator: draws them; None for torch's global one.
    """

    def __init__(
        self,
        shape: Sequence[int],
        kind: torch.dtype,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> None:
        count = math.prod(shape)
        self._words = torch.empty(-(-count * kind.itemsize // 8), dtype=torch.int64, device=device)
        self._numbers = self._words.view(kind)[:count].view(*shape)
        self._generator = generator
        self.draw()

    def draw(self) -> None:
        """Draws them anew, where they are."""
        self._words.random_(-(2**63), None, generator=self._generator)

    def get(self) -> Tensor:
        """The numbers, in the shape."""
        return self._numbers


class Draws:
    """Numbers that models drop by: the first to want some draws them, and all take the same.

    generator: draws them, on the device of the models.
    rows: which clips of a batch of `clips` the models have; they drop what they would drop there.
    """

    def __init__(self, generator: torch.Generator, rows: slice, clips: int) -> None:
        self._generator, self._rows, self._clips = generator, rows, clips
        self._drawn: list[Numbers] = []
        self._take: list[Callable[[], Tensor]] = []
        self._taken = 0  # by the model that takes now

    def anew(self) -> None:
        """Draws all again for a further batch, where they lie: there a recorded step reads them.

        On the stream that the models' streams, or what is replayed, will wait for.
        """
        for numbers in self._drawn:
            numbers.draw()
        self._take = [numbers.get for numbers in self._drawn]

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, a model's dropout takes them, one after the other from the first on."""
        global _shared
        _shared, self._taken = self, 0
        try:
            yield
        finally:
            _shared = None

    def next(
        self, shape: Sequence[int], clips: int, kind: torch.dtype, device: torch.device
    ) -> Tensor:
        """The next numbers, which are drawn if no model has taken them yet; see `Dropout.keep`."""
        if self._taken == len(self._drawn):
            whole = (*shape[:clips], self._clips, *shape[clips + 1 :])
            self._drawn.append(Numbers(whole, kind, device, self._generator))
            self._take.append(handed_on(self._drawn[-1].get()))
        self._taken += 1
        return self._take[self._taken - 1]()[(slice(None),) * clips + (self._rows,)]


_shared: Draws | None = None


def _numbers(shape: Sequence[int], clips: int, kind: torch.dtype, device: torch.device) -> Tensor:
    if _shared is None:
        return Numbers(shape, kind, device).get()
    return _shared.next(shape, clips, kind, device)
