"""Memory that two see: it keeps what is put there, grows, and is pinned as long as it is used."""

import gc
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnact.errors import DecoderError
from attnact.extract.shared import COUNT, Places

GPU = torch.device("cuda", 1)


@given(st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(1, 20_000)), max_size=12))
def test_what_one_puts_there_the_other_reads(puts: list[tuple[int, int]]) -> None:
    here = Places()
    there = Places(here.files)
    for turn, (place, size) in enumerate(puts):
        there.array(place, (1, size))[:] = turn
        seen = here.array(place, (size,))
        assert (seen == turn).all()
    here.close()


def test_an_array_outlives_its_place() -> None:
    places = Places()
    kept = places.array(0, (4,))
    kept[:] = 7
    places.array(0, (1 << 20,))[:4] = 8  # in larger memory; of the same file
    places.close()
    gc.collect()
    assert kept.tolist() == [8] * 4


class Pinning:
    """Stands in for CUDA's runtime: keeps what is pinned, and refuses with a code."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pinned: dict[int, int] = {}
        self.code, self.devices = 0, []
        runtime = SimpleNamespace(
            cudaHostRegister=self._register,
            cudaHostUnregister=self.pinned.pop,
            cudaGetErrorString=lambda code: f"error {code}",
        )
        monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
        monkeypatch.setattr(torch.cuda, "device", self)

    def __call__(self, device: torch.device) -> "Pinning":
        self.devices.append(device)
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass

    def _register(self, address: int, size: int, flags: int) -> int:
        if not self.code:
            assert address not in self.pinned
            self.pinned[address] = size
        return self.code


def test_memory_is_pinned_for_a_gpu_while_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Pinning(monkeypatch)
    places = Places(gpu=GPU)
    arrays = [places.array(0, (100,)), places.array(1, (300,)), places.array(0, (60,))]
    assert cuda.pinned == {arrays[0].ctypes.data: 100, arrays[1].ctypes.data: 300}
    larger = places.array(0, (5000,))
    assert cuda.pinned == {larger.ctypes.data: 5000, arrays[1].ctypes.data: 300}
    places.close()
    assert cuda.pinned == {}
    assert set(cuda.devices) == {GPU}


def test_memory_that_a_gpu_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Pinning(monkeypatch)
    cuda.code = 2
    places = Places(gpu=GPU)
    with pytest.raises(
        DecoderError, match=r"of a decoder \(cudaHostRegister: error 2\).* make room"
    ):
        places.array(0, (100,))
    places.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(places.files[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_knows_the_memory_as_pinned() -> None:
    places = Places(gpu=torch.device("cuda"))
    array = places.array(0, (1000,))
    array[:] = np.arange(1000) % 256
    frames = torch.from_numpy(array)
    assert frames.is_pinned()
    assert torch.equal(frames.to("cuda", non_blocking=True).cpu(), torch.from_numpy(array.copy()))
    places.close()
    assert not frames.is_pinned()
