"""Memory that two see: it keeps what is put there, grows, and is pinned as long as it is used."""

import gc
import mmap
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnact.extract.frames import gpu
from attnact.extract.frames.shared import COUNT, Places

GPU = torch.device("cuda", 1)


@pytest.fixture(autouse=True, scope="module")
def small_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnact.extract.frames.shared.STEP", 1000)
        yield


@given(st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(1, 20_000)), max_size=12))
def test_what_one_puts_there_the_other_reads(puts: list[tuple[int, int]]) -> None:
    here = Places()
    try:
        there = Places(here.files)
        for turn, (place, size) in enumerate(puts):
            there.array(place, (1, size))[:] = turn
            assert (here.array(place, (size,)) == turn).all()
    finally:
        here.close()


def test_an_array_outlives_its_place() -> None:
    places = Places()
    kept = places.array(0, (4,))
    kept[:] = 7
    places.array(0, (1 << 20,))[:4] = 8  # in larger memory; of the same file
    places.close()
    gc.collect()
    assert kept.tolist() == [8] * 4


@pytest.mark.parametrize("willing", [True, False])
def test_memory_is_pinned_for_a_gpu_while_it_is_used(
    monkeypatch: pytest.MonkeyPatch, willing: bool
) -> None:
    """What a GPU refused to pin is not unpinned, and is of use all the same."""
    pinned: list[int] = []
    told: list[tuple[str, int]] = []

    def pin(memory: mmap.mmap, device: torch.device) -> bool:
        assert device == GPU
        told.append(("pin", len(memory)))
        pinned.extend([id(memory)] * willing)
        return willing

    def unpin(memory: mmap.mmap, device: torch.device) -> None:
        assert device == GPU
        told.append(("unpin", len(memory)))
        pinned.remove(id(memory))

    monkeypatch.setattr(gpu, "pin", pin)
    monkeypatch.setattr(gpu, "unpin", unpin)
    places = Places(gpu=GPU)
    for place, size in ((0, 100), (1, 300), (0, 60), (0, 5000)):
        places.array(place, (size,))[:] = place
        assert len(pinned) == willing * sum(it is not None for it in places._maps)
    places.close()
    assert pinned == []
    pins = [("pin", 1000), ("pin", 1000), ("pin", 5000)]
    unpins = [("unpin", 1000), ("unpin", 5000), ("unpin", 1000)]
    assert told == ([*pins[:2], unpins[0], pins[2], *unpins[1:]] if willing else pins)
