"""Clips of a stream of features against those that are cut from a cache."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnact.cache.tables import VideoRow
from attnact.train.config import TrainConfig
from attnact.train.feed import stream
from attnact.train.feed.clips import Clips, Cut, cut_clips, scored_cut, step_at
from attnact.train.feed.stream import Block, cached_blocks, needed, stream_clips


@pytest.fixture(autouse=True, scope="module")
def small_cubes() -> Iterator[None]:
    """One channel, which holds the frame's number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "CHANNELS", 1)
        yield


def blocks_of(count: int, size: int, cut: Cut) -> Iterator[Block]:
    for start in range(0, count, size):
        stop = min(count, start + size)
        positions = needed(cut, np.arange(start, stop))
        cubes = torch.from_numpy(positions).half().view(-1, 1, 1, 1).expand(-1, 7, 7, 1)
        yield Block(stop, positions, cubes)


def together(parts: list[tuple[Clips, torch.Tensor]]) -> tuple[Clips, np.ndarray]:
    columns = ("video", "first", "step", "frames", "valid")
    clips = Clips(*(np.concatenate([getattr(c, name) for c, _ in parts]) for name in columns))
    return clips, torch.cat([X for _, X in parts]).numpy()


@given(
    count=st.integers(1, 400),
    rate=st.sampled_from([0.0, 12.5, 25.0, 30.0, 59.94]),
    fps=st.sampled_from([30.0, 15.0, 10.0, 6.0]),
    stride=st.integers(1, 200),
    form=st.sampled_from(["paper", "released"]),
    size=st.sampled_from([1, 16, 1000]),
)
def test_a_stream_has_the_clips_of_a_cache(count, rate, fps, stride, form, size) -> None:
    """However the frames come in blocks, and though those that no clip needs are left out."""
    row = VideoRow(0, frames=count, frame_rate=rate)
    cache: Any = SimpleNamespace(rows=[row], first_frames=np.array([0]))
    expected = cut_clips(cache, np.array([0]), fps=fps, stride=stride, form=form)
    cut = scored_cut(rate, TrainConfig(fps=fps, test_stride=stride, clip_form=form))
    clips, X = together(list(stream_clips(blocks_of(count, size, cut), cut)))
    assert clips.positions().tolist() == expected.positions().tolist()
    assert clips.mask().tolist() == expected.mask().tolist()
    assert X.shape == (len(expected), 30, 49, 1)
    assert X[..., 0, 0].tolist() == expected.positions().tolist()


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_the_features_of_a_video_in_a_cache(make_cache, tmp_path, dtype) -> None:
    cache = make_cache(tmp_path / "small.h5", videos=3, frames=lambda _: 70, dtype=dtype)
    blocks = list(cached_blocks(cache, 1, Cut(step=2, stride=100)))
    assert [block.frames for block in blocks] == [64, 70]
    assert np.concatenate([block.positions for block in blocks]).tolist() == list(range(0, 60, 2))
    expected = cache.read(70, 59)[::2]
    assert torch.cat([block.cubes for block in blocks]).numpy().tobytes() == expected.tobytes()


def test_nothing_of_a_video_without_frames() -> None:
    assert not list(stream_clips([], Cut(step=1, stride=1)))


def test_frames_that_no_clip_holds_are_not_needed() -> None:
    assert needed(Cut(step=2, stride=10), np.arange(9)).tolist() == [0, 2, 4, 6, 8]
    assert needed(Cut(step=2, stride=3), np.arange(9)).tolist() == list(range(9))
    assert needed(Cut(step=1, stride=100), np.arange(120)).tolist() == [
        *range(30),
        *range(100, 120),
    ]


def test_a_long_video_takes_no_more_memory_than_a_short_one(monkeypatch) -> None:
    """A window of the span of a clip, the block that came last, and the clips that wait."""
    most, stack = 0, stream._stack

    def watched(held, start, there, cut):
        nonlocal most
        most = max(most, len(held))
        return stack(held, start, there, cut)

    monkeypatch.setattr(stream, "_stack", watched)
    cut = Cut(step=2, stride=7)
    seen = 0
    for clips, _ in stream_clips(blocks_of(5000, 16, cut), cut):
        assert len(clips) <= stream.CLIPS_AT_ONCE
        seen += len(clips)
    assert seen == len(cut.starts(5000))
    assert most <= cut.span + 16


def test_a_videos_own_frame_rate_sets_the_step() -> None:
    assert [step_at(rate, 10.0, "paper") for rate in (0.0, 24.0, 30.0, 60.0)] == [3, 2, 3, 6]
    config = TrainConfig(fps=30.0, test_fps=6.0, test_stride=4)
    assert scored_cut(30.0, config) == Cut(step=5, stride=4)
