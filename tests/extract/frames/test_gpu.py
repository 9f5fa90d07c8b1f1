"""How frames come to a GPU: what CUDA is asked for, and on which device."""

import mmap
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from attnact.extract.frames.gpu import on_device, own_stream, pin, resizes_on, unpin
from attnact.extract.frames.shared import Places

CPU, GPU = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Code:
    """An error of CUDA as torch gives it, which is no number itself."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


def stand_in(monkeypatch: pytest.MonkeyPatch, code: int) -> list[Any]:
    """Has something stand in for CUDA; gives what is asked of it, in order."""
    asked: list[Any] = []

    class Device:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            asked.append(f"on {self.device}")

        def __exit__(self, *error: object) -> None:
            asked.append(f"off {self.device}")

    def register(address: int, size: int, flags: int) -> Code:
        asked.append((address, size, flags))
        return Code(code)

    def ones(count: int, device: torch.device) -> None:
        asked.append(f"ones on {device}")
        raise RuntimeError("CUDA error: of the last call")

    runtime = SimpleNamespace(
        cudaHostRegister=register,
        cudaHostUnregister=asked.append,
        cudaGetErrorString=lambda code: f"error {int(code)}",
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(torch, "ones", ones)
    return asked


def test_memory_is_pinned_on_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch, 0)
    memory, device = mmap.mmap(-1, 5000), torch.device("cuda", 1)
    address = np.frombuffer(memory, np.uint8).ctypes.data
    assert pin(memory, device)
    unpin(memory, device)
    around = ("on cuda:1", "off cuda:1")
    assert asked == [around[0], (address, 5000, 0), around[1], around[0], address, around[1]]


def test_a_refusal_is_told_and_leaves_no_error_behind(monkeypatch, capsys) -> None:
    asked = stand_in(monkeypatch, 2)
    assert not pin(mmap.mmap(-1, 5000), GPU)
    assert asked[2:] == ["ones on cuda", "off cuda"]
    assert not pin(mmap.mmap(-1, 5000), GPU)
    told = "cuda does not pin memory (error 2): copies take longer\n"  # once
    assert capsys.readouterr().err == told


def test_only_cuda_resizes_by_itself() -> None:
    """What other devices make of the products was never held against a CPU."""
    assert resizes_on(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert resizes_on(torch.device("mps")) == resizes_on(CPU) == CPU


def test_on_a_cpu_nothing_is_copied_and_nothing_waited_for() -> None:
    frames = np.zeros((2, 3, 4, 3), np.uint8)
    assert on_device(frames, CPU).data_ptr() == frames.ctypes.data
    with own_stream(CPU) as wait:
        wait()


@needs_gpu
def test_a_gpu_knows_the_memory_as_pinned() -> None:
    places = Places(gpu=GPU)
    array = places.array(0, (1000,))
    array[:] = np.arange(1000) % 256
    kept = torch.from_numpy(array.copy())
    assert torch.from_numpy(array).is_pinned()
    there = on_device(array, GPU)
    array[:] = 0  # as the decoder does with its next frames
    assert torch.equal(there.cpu(), kept)
    places.close()
    assert not torch.from_numpy(array).is_pinned()


@needs_gpu
def test_each_thread_has_a_stream_of_its_own() -> None:
    found = []

    def work() -> None:
        with own_stream(GPU) as wait:
            found.append((torch.cuda.current_stream(), (torch.ones(1000, device=GPU) * 2).sum()))
            wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len({stream for stream, _ in found} | {torch.cuda.current_stream()}) == 4
    assert [int(total) for _, total in found] == [2000] * 3


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_thread_for_the_second_gpu_leaves_the_first_alone() -> None:
    second, used = torch.device("cuda", 1), torch.cuda.mem_get_info(0)[0]

    def work() -> None:
        places = Places(gpu=second)
        with own_stream(second) as wait:
            on_device(places.array(0, (1000,)), second)
            wait()
        places.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert torch.cuda.mem_get_info(0)[0] == used
