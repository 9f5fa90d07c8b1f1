"""Runs that train an epoch after the other, those that stand at the same epoch as one stack.

Runs that differ in nothing but λ see the same clips in the same order, start from the same weights
and drop the same units. Each goes its own course all the same, as if it were alone: it chooses its
own epoch, keeps its own state, may stop before the others or fail without them. Only its epochs are
trained for it.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import torch

from attnact.errors import AttnactError, UnsupportedError
from attnact.machine.progress import Advance, progress
from attnact.train.config import TrainConfig
from attnact.train.epoch import Line, Pass, train_epoch
from attnact.train.selection import FINAL, SELECTION

Course = Generator[
    Pass, Line | None, dict[str, Any]
]  # what is to be trained, its cost, the summary
Outcome = dict[str, Any] | Exception  # a run's summary, or what it failed on

FAILURES = (AttnactError, MemoryError, OSError, RuntimeError)  # of a run, which leave the others


LARGEST = 4  # runs of a stack: each takes memory of its own, and more would share little more


def stacks(config: TrainConfig, device: torch.device) -> bool:
    """Whether runs of such choices that differ in nothing but λ train as a stack.

    On a GPU they do: the steps of one are too small to fill it. On a CPU a stack is a little faster
    too (`make bench`), but the last bits of a run would depend on which runs stood where it did,
    and so on when a sweep was interrupted; there the same bytes come out whatever happens.
    """
    return config.model == "attention" and device.type == "cuda"


def in_step(courses: Sequence[Course]) -> Iterator[tuple[int, Outcome]]:
    """Goes along all courses to their ends; gives the position and outcome of each at its end.

    Whichever is behind goes first, until it stands where the next one does.
    """
    waiting: dict[int, Pass] = {}

    def go_on(position: int, line: Line | Exception | None) -> Iterator[tuple[int, Outcome]]:
        """To its next epoch, which then waits, or to its end."""
        course = courses[position]
        try:
            on = course.throw(line) if isinstance(line, Exception) else course.send(line)
            waiting[position] = on
        except StopIteration as end:
            yield position, end.value
        except FAILURES as error:
            yield position, error

    for position in range(len(courses)):
        yield from go_on(position, None)
    for phase in (SELECTION, FINAL):
        passes = [it for it in waiting.values() if it.phase == phase]
        if not passes:
            continue
        every = sum(it.config.epochs * it.clips_visited for it in passes)
        with progress(phase, every, "clips") as advance:
            advance(sum((it.epoch - 1) * it.clips_visited for it in passes), "")
            while epochs := [it.epoch for it in waiting.values() if it.phase == phase]:
                place = phase, min(epochs)
                now = [i for i, it in waiting.items() if (it.phase, it.epoch) == place]
                lines = _trained([waiting.pop(position) for position in now], advance)
                for position, line in zip(now, lines, strict=True):
                    yield from go_on(position, line)


def _trained(passes: Sequence[Pass], advance: Advance) -> Sequence[Line | Exception]:
    try:
        return train_epoch(passes, advance)
    except UnsupportedError as error:  # the device refuses, and is best left alone
        return [error] * len(passes)
    except FAILURES as error:
        if len(passes) == 1:
            return [error]
    # A stack needs more memory than one run; and what fails for one need not for the next.
    return [line for it in passes for line in _trained([it], advance)]
