"""Clips as views over the frames that they share, against plain indexing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnact.model.windows import Window, Windows

windows = st.builds(
    Window,
    first=st.integers(0, 5),
    count=st.integers(1, 4),
    stride=st.integers(1, 4),
    step=st.integers(1, 3),
)


@given(st.lists(windows, min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 2))
def test_a_window_shows_the_frames_of_its_clips(parts, steps, extra) -> None:
    frames = torch.randn(60, *[2] * extra)[3:].transpose(0, -1).contiguous().transpose(0, -1)
    found = Windows(frames, parts, steps).over(frames)
    for window, clips in zip(parts, found, strict=True):
        for b in range(window.count):
            for t in range(steps):
                at = window.first + b * window.stride + t * window.step
                assert torch.equal(clips[b, t], frames[at])
        assert clips.untyped_storage().data_ptr() == frames.untyped_storage().data_ptr()


def test_clips_that_share_nothing() -> None:
    X = torch.randn(2, 3, 4, 5)
    clips = Windows.of(X)
    assert len(clips) == 2
    assert clips.steps == 3
    assert not clips.overlap
    assert torch.equal(clips.gather(clips.frames), X)


@pytest.mark.parametrize(
    ("window", "overlap"),
    [
        (Window(0, 2, 1, 1), True),
        (Window(0, 2, 3, 1), False),
        (Window(0, 2, 3, 2), True),
        (Window(0, 1, 1, 1), False),
    ],
)
def test_overlap(window: Window, overlap: bool) -> None:
    assert Windows(torch.zeros(9, 1, 1), [window], 3).overlap == overlap


def test_parts_stand_in_their_order() -> None:
    frames = torch.arange(10.0)[:, None]
    clips = Windows(frames, [Window(4, 2, 1, 1), Window(0, 1, 1, 2)], 2)
    assert len(clips) == 3
    assert clips.gather(frames)[..., 0].tolist() == [[4, 5], [5, 6], [0, 2]]
