"""Work recorded and replayed, on a stand-in for a GPU's graphs; and on a GPU, where one is."""

import pytest
import torch
from torch import Tensor, nn

from attnact.errors import UnsupportedError
from attnact.machine.replayed import Replayed, replays
from attnact.model.dropout import Numbers
from tests.made_graphs import Graph, Recording, Stream, stand_in

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif("not torch.cuda.is_available()", reason="needs a GPU")
    ),
]


class Work:
    """Something with a gradient, random numbers, and memory that is written to twice."""

    def __init__(self, device: str) -> None:
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 3, device=device))
        self.calls = 0

    def __call__(self, x: Tensor, scale: Tensor) -> Tensor:
        self.calls += 1
        kept = Numbers((len(x), 3), torch.int8, x.device).get() > 0
        made = torch.tanh(x @ self.weight) * kept
        total = made.new_zeros(()).add_(made.square().sum()).mul_(scale[0])
        total.backward()
        return total.detach()[None]


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_replayed_is_what_would_be_done(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = stand_in(monkeypatch) if device == "cpu" else None
    plain, recorded = Work(device), Work(device)
    replayed = Replayed(recorded, torch.device(device), [recorded.weight])
    sizes = [6, 6, 6, 2, 6]  # as it is, recorded, replayed, as it is, replayed
    inputs = [(torch.randn(n, 4, device=device), torch.randn(1, device=device)) for n in sizes]
    found = []
    for work, weight in ((plain, plain.weight), (replayed, recorded.weight)):
        torch.manual_seed(1)
        seen = []
        for x, scale in inputs:
            weight.grad = None
            seen += [work(x, scale).clone(), weight.grad.clone()]
            with torch.no_grad():
                weight -= 0.1 * weight.grad
        found.append(seen)
    torch.testing.assert_close(*found, rtol=0, atol=0 if device == "cpu" else 1e-6)
    assert recorded.calls == 3  # the first, the recording, and the one of another size
    if graphs:
        assert graphs.replays == 3


def test_a_replay_waits_for_what_begins_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch before 2.12 writes there where random numbers stand, as does each replay."""
    stand_in(monkeypatch)
    seen = []
    monkeypatch.setattr(Recording, "__enter__", lambda self: seen.append("record"))
    monkeypatch.setattr(Recording, "__exit__", lambda self, *error: None)
    monkeypatch.setattr(Stream, "wait_stream", lambda self, other: seen.append("wait"))
    monkeypatch.setattr(Graph, "replay", lambda self: seen.append("replay"))
    replayed = Replayed(lambda x: x + 1, torch.device("cpu"))
    replayed(torch.ones(2))
    seen.clear()
    replayed(torch.ones(2))
    assert seen == ["record", "wait", "replay"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_first_replay_draws_after_what_the_call_before_drew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though what begins the recording is still under way."""
    begin = torch.cuda.CUDAGraph.capture_begin

    def late(graph: torch.cuda.CUDAGraph, *args: object, **kwargs: object) -> None:
        torch.cuda._sleep(10**8)
        begin(graph, *args, **kwargs)

    def work(x: Tensor) -> Tensor:
        torch.cuda._sleep(3 * 10**8)
        return torch.rand_like(x)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_begin", late)
    torch.manual_seed(0)
    replayed, x = Replayed(work, torch.device("cuda")), torch.zeros(4, device="cuda")
    found = [replayed(x).tolist() for _ in range(3)]
    torch.manual_seed(0)
    assert found == [torch.rand_like(x).tolist() for _ in range(3)]


def test_work_that_waits_for_a_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    replayed = Replayed(lambda x: x * x.sum().item(), torch.device("cpu"))
    replayed(torch.ones(2))
    with pytest.raises(UnsupportedError) as refused:
        replayed(torch.ones(2))
    assert str(refused.value) == (
        "cpu: what it does cannot be recorded (operation not permitted when stream is capturing); "
        "set ATTNACT_CUDA_GRAPHS=0 to do without"
    )


def test_memory_that_runs_out_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    calls = iter([torch.ones(1)])

    def work(x: Tensor) -> Tensor:
        for made in calls:
            return made
        raise torch.OutOfMemoryError("CUDA out of memory")

    replayed = Replayed(work, torch.device("cpu"))
    replayed(torch.ones(1))
    with pytest.raises(torch.OutOfMemoryError):
        replayed(torch.ones(1))


def test_the_first_shapes_that_come_again_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = stand_in(monkeypatch)
    replayed = Replayed(lambda x: 2 * x, torch.device("cpu"))
    for n in (1, 3, 3, 1, 3):  # as it is, as it is, recorded, as it is, replayed
        assert torch.equal(replayed(torch.ones(n)), torch.full((n,), 2.0))
    assert graphs.replays == 2


def test_what_lies_still_is_read_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, seen = stand_in(monkeypatch), []

    def work(x: Tensor, y: Tensor) -> Tensor:
        seen.append((x.data_ptr(), y.data_ptr()))
        return x + y

    replayed, room = Replayed(work, torch.device("cpu"), still=1), torch.empty(3)
    for n in range(4):  # as it is, recorded, replayed, replayed
        other = torch.full((3,), float(n))
        assert torch.equal(replayed(room.fill_(n), other), 2 * other)
        assert seen[-1][0] == room.data_ptr() != seen[-1][1] != other.data_ptr()
    assert graphs.replays == 3
    elsewhere = torch.ones(3)
    assert torch.equal(replayed(elsewhere, room.fill_(5)), room + 1)
    assert seen[-1] == (elsewhere.data_ptr(), room.data_ptr())
    assert graphs.replays == 3


def test_gpus_replay_unless_they_are_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTNACT_CUDA_GRAPHS", raising=False)
    assert replays(torch.device("cuda", 1))
    assert not replays(torch.device("cpu"))
    monkeypatch.setenv("ATTNACT_CUDA_GRAPHS", "0")
    assert not replays(torch.device("cuda"))
