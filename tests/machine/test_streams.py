"""Works side by side: what they make, and that none begins or is taken before it may."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from attnact.machine import streams
from attnact.machine.replayed import Replayed
from attnact.machine.streams import handed_on, side_by_side
from tests.made_graphs import Stream, stand_in

GPU = torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Which stream waited for which, on stand-ins for a GPU's."""
    seen: list[tuple[str, str]] = []
    names: dict[int, str] = {}
    current = Stream()

    def name(stream: Stream) -> str:
        return "current" if stream is current else names.setdefault(id(stream), f"{len(names)}")

    stand_in(monkeypatch)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(
        Stream, "wait_stream", lambda stream, other: seen.append((name(stream), name(other)))
    )
    streams._stream.cache_clear()
    yield seen
    streams._stream.cache_clear()


def test_each_waits_for_what_came_before_and_what_comes_after_for_each(
    waits: list[tuple[str, str]],
) -> None:
    assert side_by_side(GPU, [lambda i=i: i for i in range(2)]) == [0, 1]
    assert waits == [("0", "current"), ("1", "current"), ("current", "0"), ("current", "1")]
    waits.clear()
    assert side_by_side(GPU, [lambda: 5]) == [5]
    assert not waits


def test_what_was_begun_is_waited_for_where_one_fails(waits: list[tuple[str, str]]) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        side_by_side(GPU, [lambda: None, fail, lambda: None])
    assert waits == [("0", "current"), ("1", "current"), ("current", "0"), ("current", "1")]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_comes_before_and_after_is_seen(device: str, count: int) -> None:
    """Though what comes before takes long, and so does each of the works."""
    before = slowly(torch.ones((), device=device))
    works = [lambda i=i: slowly(before + i) for i in range(count)]
    made = side_by_side(torch.device(device), works)
    assert [it.item() for it in made] == [1.0 + i for i in range(count)]


@pytest.mark.parametrize("device", DEVICES)
def test_what_one_makes_another_waits_for(device: str) -> None:
    one = torch.ones((), device=device)
    handed: list[Callable[[], Tensor]] = []

    def first() -> Tensor:
        handed.append(handed_on(slowly(one)))
        return one

    _, second, third = side_by_side(torch.device(device), [first, *[lambda: handed[0]() + 1] * 2])
    assert (second.item(), third.item()) == (2.0, 2.0)


@needs_gpu
def test_on_a_gpu_one_is_done_while_another_goes_on() -> None:
    def work(cycles: int) -> torch.cuda.Event:
        torch.cuda._sleep(cycles)
        return torch.cuda.current_stream().record_event()

    slow, quick = side_by_side(GPU, [lambda: work(10**9), lambda: work(1)])
    quick.synchronize()
    assert not slow.query()
    torch.cuda.synchronize()


@needs_gpu
def test_a_recording_that_fails_in_the_middle_ends() -> None:
    """Else whatever draws a number on the GPU after it would fail, too."""
    calls = []

    def second() -> Tensor:
        calls.append(1)
        if len(calls) == 2:  # the recording
            raise torch.cuda.OutOfMemoryError("no memory")
        return torch.rand(1, device=GPU)

    works = [lambda: torch.rand(1, device=GPU), second, lambda: torch.rand(1, device=GPU)]
    replayed = Replayed(lambda x: x + torch.cat(side_by_side(GPU, works)), GPU)
    replayed(torch.zeros(3, device=GPU))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        replayed(torch.zeros(3, device=GPU))
    assert torch.rand(1, device=GPU).item() < 1


def slowly(value: Tensor) -> Tensor:
    """The same, on a GPU after a good while; until then it is no number."""
    made = torch.full_like(value, torch.nan)
    if value.is_cuda:
        torch.cuda.synchronize()
        torch.cuda._sleep(10**7)
    return made.copy_(value)
