"""What the benchmarks share: figures of several runs, and the limits of the machine."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from attnact.model.products import Weights

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Row(NamedTuple):
    """What was measured, as a page shows it."""

    part: str
    ours: str
    peer: str = ""
    bound: str = ""
    note: str = ""


class Figure(NamedTuple):
    """The median of several runs, and the least and the most of them."""

    median: float
    least: float
    most: float

    def text(self, unit: str, scale: float = 1, digits: int = 0) -> str:
        """As a page shows it: `20.1 (19.8–20.3) frames/s`."""
        median, least, most = (f"{value / scale:,.{digits}f}" for value in self)
        return f"{median} ({least}–{most}) {unit}"


def figure(values: Sequence[float]) -> Figure:
    """Sums up several runs."""
    return Figure(statistics.median(values), min(values), max(values))


def seconds(work: Callable[[], object]) -> float:
    """What one run takes, a GPU's part of it too."""
    start = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(works: Sequence[Callable[[], object]], runs: int, repeat: int = 1) -> list[list[float]]:
    """The seconds of each in every run, after one that warms up; A B A B, so that a machine whose
    speed drifts favours none.

    repeat: how often each works before the next, of which the last time counts. What is done over
        and over has its memory already, where after another work it would ask for it anew.
    """
    taken: list[list[float]] = [[] for _ in works]
    for i in range(runs + 1):
        for times, work in zip(taken, works, strict=True):
            once = [seconds(work) for _ in range(repeat)][-1]
            if i:
                times.append(once)
    return taken


def ratio(above: Sequence[float], below: Sequence[float]) -> Figure:
    """The quotient, run by run."""
    return figure([a / b for a, b in zip(above, below, strict=True)])


def product(dtype: torch.dtype) -> Callable[[], object]:
    """A large matrix product; `OPERATIONS` of it. On a CPU by MKL or oneDNN, what is faster."""
    a = torch.rand(SIDE, SIDE, device=DEVICE).to(dtype)
    ways: list[Callable[[], object]] = [lambda: (a @ a)[0, 0].item()]
    if DEVICE.type == "cpu":
        weights = Weights(a)
        ways.append(lambda: weights.times(a)[0, 0].item())
    taken = in_turn(ways, 2)
    return ways[taken.index(min(taken, key=min))]


SIDE = 3072 if DEVICE.type == "cpu" else 8192
OPERATIONS = 2 * SIDE**3


def reading() -> tuple[Callable[[], object], int]:
    """Reads a stretch of memory that no cache holds, and long enough to time; and its bytes."""
    megabytes = 256 if DEVICE.type == "cpu" else 4096
    stretch = torch.ones(megabytes << 18, device=DEVICE)
    return lambda: stretch.sum().item(), 4 * len(stretch)
