"""Works side by side on a GPU, each on a stream of its own: one of small kernels leaves it idle."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


def side_by_side(device: torch.device, works: Sequence[Callable[[], Made]]) -> list[Made]:
    """What each makes, on this device; what comes after finds all of it done.

    On a GPU they run at the same time, also where they are recorded to be replayed; else, and of a
    single one, one after the other. Where one raises, those before it are waited for all the same.
    """
    if device.type != "cuda" or len(works) == 1:
        return [work() for work in works]
    current, begun, made = torch.cuda.current_stream(device), [], []
    try:
        for place, work in enumerate(works):
            stream = _stream(device, place)
            stream.wait_stream(current)
            begun.append(stream)
            with torch.cuda.stream(stream):
                made.append(work())
    except BaseException:
        # A recording ends with all of them, or torch takes it to go on for ever.
        with suppress(RuntimeError):  # of one that is spoilt, which would hide what spoilt it
            _join(current, begun)
        raise
    _join(current, begun)
    return made


def handed_on(made: Tensor) -> Callable[[], Tensor]:
    """Gives what this stream has made to any other, which waits until it is.

    It is to be kept until all are done: memory that is let go of goes to what this one makes next.
    """
    if not made.is_cuda:
        return lambda: made
    event = torch.cuda.current_stream(made.device).record_event()

    def take() -> Tensor:
        torch.cuda.current_stream(made.device).wait_event(event)
        return made

    return take


def _join(current: Any, begun: Sequence[Any]) -> None:
    for stream in begun:
        current.wait_stream(stream)


@cache
def _stream(device: torch.device, place: int) -> Any:
    """The same ones always: each would keep memory for its products for ever.

    Of another priority than the rest: of each torch has 32 in turn, and what another thread did on
    the same one would be recorded, too.
    """
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
