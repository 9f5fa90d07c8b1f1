"""Works side by side: what they make, and that none begins or is taken before it may."""

import pytest
import torch
from torch import Tensor

from attnact.machine.streams import handed_on, side_by_side

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]


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
    handed: list = []

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

    slow, quick = side_by_side(torch.device("cuda"), [lambda: work(10**9), lambda: work(1)])
    quick.synchronize()
    assert not slow.query()
    torch.cuda.synchronize()


def slowly(value: Tensor) -> Tensor:
    """The same, after a good while on a GPU."""
    if value.is_cuda:
        torch.cuda._sleep(10**7)
    return value.clone()
