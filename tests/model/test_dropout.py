"""Dropout: what it drops, and that models which share its numbers drop the same."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from attnact.model.dropout import Draws, Dropout, Numbers

LIKE = torch.ones(1)
SIZES = [(4, 3), (2, 5)]


@pytest.mark.parametrize("share", [0.5, 0.3, 0.75, 0.9])
def test_dropout_drops_its_share(share: float) -> None:
    """Each unit by itself, whether a byte draws for it or two."""
    torch.manual_seed(0)
    kept = Dropout(share, "paper").train().keep((1000, 400), LIKE)
    assert kept is not None
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 1 / (1 - share)]))
    dropped = (kept == 0).double()
    deviation = math.sqrt(share * (1 - share))
    assert abs(dropped.mean().item() - share) < 5 * deviation / math.sqrt(dropped.numel())
    between = torch.corrcoef(dropped[:, :8].T) - torch.eye(8)
    assert between.abs().max() < 5 / math.sqrt(1000)


def test_numbers_drawn_anew_lie_where_they_were() -> None:
    numbers = Numbers((3, 7), torch.int16, torch.device("cpu"))
    drawn = numbers.get()
    before, place = drawn.clone(), drawn.data_ptr()
    numbers.draw()
    assert numbers.get().data_ptr() == place
    assert not torch.equal(drawn, before)
    assert drawn.shape == (3, 7)


def kept(dropout: Dropout, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Tensor | None]:
    return [dropout.keep(size, LIKE) for size in sizes]


def test_models_that_share_draws_drop_what_one_drops_alone() -> None:
    """In the order of its draws, in each batch; without them each draws anew."""
    dropout = Dropout(0.5, "paper").train()
    torch.manual_seed(0)
    expected = [kept(dropout, [(6, 3), (6, 5)]) for _ in range(3)]
    torch.manual_seed(1)  # what the global numbers are does not matter
    draws = Draws(torch.Generator().manual_seed(0), slice(None), 6)
    for batch in range(3):
        if batch:
            draws.anew()
        for _ in range(2):
            with draws.taken():
                torch.testing.assert_close(kept(dropout, [(6, 3), (6, 5)]), expected[batch])
    assert not torch.equal(dropout.keep((40, 30), LIKE), dropout.keep((40, 30), LIKE))


def test_a_stream_waits_for_numbers_that_another_draws_but_for_none_that_lie_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is recorded may not wait for what came before; that was done before it began."""
    waits = []

    def handed_on(numbers: Tensor) -> Callable[[], Tensor]:
        def take() -> Tensor:
            waits.append(numbers.shape)
            return numbers

        return take

    monkeypatch.setattr("attnact.model.dropout.handed_on", handed_on)
    draws = Draws(torch.Generator(), slice(None), 6)
    with draws.taken():
        kept(Dropout(0.5, "paper").train(), [(6, 3)])
    assert waits == [(6, 3)]
    draws.anew()
    with draws.taken():
        kept(Dropout(0.5, "paper").train(), [(6, 3)])
    assert waits == [(6, 3)]


def test_dropout_of_a_share_is_that_of_the_batch() -> None:
    dropout = Dropout(0.5, "paper").train()
    for rows in (slice(1, None, 2), slice(0, 1)):
        count = len(range(7)[rows])
        for clips, shape, own in [(0, (7, 3), (count, 3)), (1, (4, 7, 3), (4, count, 3))]:
            torch.manual_seed(0)
            whole = dropout.keep(shape, LIKE, clips)
            with Draws(torch.Generator().manual_seed(0), rows, 7).taken():
                part = dropout.keep(own, LIKE, clips)
            torch.testing.assert_close(part, whole[rows] if clips == 0 else whole[:, rows])
