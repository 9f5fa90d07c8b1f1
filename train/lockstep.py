"""Runs that train an epoch after the other, those that stand at the same epoch side by side.

They differ in nothing but λ and seed; those of one seed see the same clips in the same order, start
from the same weights and drop the same units. Each goes its own course all the same, as if it were
alone: it chooses its own epoch, keeps its own state, may stop before the others or fail without
them. Only its epochs are trained for it.
"""

from collections.abc import Generator, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch

from attnact.errors import AttnactError, UnsupportedError
from attnact.machine.progress import Advance, progress
from attnact.train.config import TrainConfig
from attnact.train.epoch import train_epoch
from attnact.train.lanes import Line, Pass
from attnact.train.selection import FINAL, SELECTION

Course = Generator[
    Pass, Line | None, dict[str, Any]
]  # what is to be trained, its cost, the summary
Outcome = dict[str, Any] | Exception  # a run's summary, or what it failed on
States = tuple[dict[str, Any], dict[str, Any]]  # of a model, and of its optimiser

FAILURES = (AttnactError, MemoryError, OSError, RuntimeError)  # of a run, which leave the others


def abreast(config: TrainConfig, device: torch.device) -> int:
    """How many such runs, which differ in nothing but λ and seed, train side by side.

    On a GPU some: the steps of one are too small to fill it, but each takes memory of its own. One
    fills a CPU, where they would only wait for each other. The baselines train alone: their steps
    are not recorded, and of cuDNN's LSTM on several streams it is not known that it makes the same.
    """
    return 4 if device.type == "cuda" and config.model == "attention" else 1


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
    if len(passes) == 1:
        return [_alone(passes[0], advance)]
    before: list[States | None] = [None] * len(passes)
    try:
        before = [deepcopy((it.model.state_dict(), it.optimizer.state_dict())) for it in passes]
        return train_epoch(passes, advance)
    except UnsupportedError as error:  # the device refuses, and is best left alone
        return [error] * len(passes)
    except FAILURES:
        pass
    # Several need more memory than one run; and what fails for one need not for the next.
    for it in passes:
        it.optimizer.zero_grad()
    return [_alone(it, advance, states) for it, states in zip(passes, before, strict=True)]


def _alone(it: Pass, advance: Advance, before: States | None = None) -> Line | Exception:
    """An epoch of one run, from the states of its model and optimiser if they are given."""
    try:
        if before:
            it.model.load_state_dict(before[0])
            it.optimizer.load_state_dict(before[1])
        return train_epoch([it], advance)[0]
    except FAILURES as error:
        return error
