"""Clips against a naive loop over the frames of each video."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnact.cache.tables import VideoRow
from attnact.model.windows import Windows
from attnact.train.config import CLIP_FRAMES
from attnact.train.feed.clips import Clips, Cut, cut_clips, some_of_each, windows

RATES = [0.0, 10.0, 12.5, 15.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0]


def cache_of(*videos: tuple[int, float]) -> Any:
    """What of a cache decides the clips: the frame count and frame rate of each video."""
    rows = [VideoRow(i, frames=count, frame_rate=rate) for i, (count, rate) in enumerate(videos)]
    return SimpleNamespace(rows=rows, first_frames=np.cumsum([0, *(n for n, _ in videos)])[:-1])


@given(
    videos=st.lists(st.tuples(st.integers(1, 330), st.sampled_from(RATES)), min_size=1, max_size=5),
    fps=st.sampled_from([30.0, 15.0, 6.0]),
    stride=st.integers(1, 40),
    data=st.data(),
)
def test_clips(videos: Any, fps: float, stride: int, data: st.DataObject) -> None:
    cache = cache_of(*videos)
    chosen = data.draw(st.permutations(range(len(videos))))[: data.draw(st.integers(1, 5))]
    expected, where, counted = [], [], []
    for video in chosen:
        count, rate = videos[video]
        own = range(cache.first_frames[video], cache.first_frames[video] + count)
        step = min(range(1, 20), key=lambda k: abs(k - (rate or 30) / fps))  # the nearest
        fits = [own[start::step][:30] for start in range(0, count, stride)]
        for clip in [list(c) for c in fits if len(c) == 30] or [list(own[::step])]:
            counted.append([1] * len(clip) + [0] * (30 - len(clip)))
            expected.append(clip + clip[-1:] * (30 - len(clip)))
            where.append(video)
    clips = cut_clips(cache, np.array(chosen), fps=fps, stride=stride, form="paper")
    assert len(clips) == len(expected)
    assert clips.positions().tolist() == expected
    assert clips.mask().tolist() == counted
    assert clips.video.tolist() == where


@given(
    videos=st.lists(st.tuples(st.integers(1, 330), st.sampled_from(RATES)), min_size=1, max_size=5),
    fps=st.sampled_from([30.0, 15.0, 6.0]),
    stride=st.integers(1, 40),
)
def test_clips_of_the_released_code(videos: Any, fps: float, stride: int) -> None:
    """As its `DataHandler` counts, whatever a video's own frame rate."""
    cache = cache_of(*videos)
    expected, skip = [], {30: 1, 15: 2, 6: 5}[fps]
    for first, (length, _) in zip(cache.first_frames.tolist(), videos, strict=True):
        for start in range(first, max(first + length - 30 * skip, first) + 1, stride):
            if length >= 30 * skip:
                expected.append(list(range(start, start + 30 * skip, skip)))
            else:
                there = list(range(start, start + length, skip))
                expected.append(there + there[-1:] * (30 - len(there)))
    clips = cut_clips(cache, np.arange(len(videos)), fps=fps, stride=stride, form="released")
    assert clips.positions().tolist() == expected
    assert clips.mask().all()  # the repeats count


@pytest.mark.parametrize(
    ("rate", "fps", "step"),
    [
        (30, 30, 1),
        (30, 15, 2),
        (30, 6, 5),
        (29.97, 6, 5),
        (25, 30, 1),
        (25, 15, 2),
        (25, 6, 4),
        (60, 30, 2),
        (10, 30, 1),
        (0, 15, 2),  # a file that does not tell its rate
    ],
)
def test_step(rate: float, fps: float, step: int) -> None:
    clips = cut_clips(cache_of((500, rate)), np.array([0]), fps=fps, stride=500, form="paper")
    assert clips.positions().tolist() == [list(range(0, 30 * step, step))]


@pytest.mark.parametrize("form", ["paper", "released"])
def test_one_frame(form: Any) -> None:
    cache = cache_of((40, 30), (1, 30), (40, 30))
    clips = cut_clips(cache, np.array([1]), fps=30, stride=1, form=form)
    assert clips.positions().tolist() == [[40] * CLIP_FRAMES]
    assert clips.mask().sum() == (1 if form == "paper" else CLIP_FRAMES)


def test_a_frame_short_and_just_enough() -> None:
    cache = cache_of((29, 30), (30, 30), (31, 30))
    clips = cut_clips(cache, np.arange(3), fps=30, stride=1, form="paper")
    assert clips.video.tolist() == [0, 1, 2, 2]
    assert clips.frames.tolist() == [29, 30, 30, 30]
    assert clips.positions()[0, -2:].tolist() == [28, 28]


def test_no_videos() -> None:
    clips = cut_clips(cache_of((40, 30)), np.array([], int), fps=30, stride=1, form="released")
    assert len(clips) == 0
    assert clips.positions().shape == clips.mask().shape == (0, CLIP_FRAMES)


def test_choosing_clips() -> None:
    cache = cache_of((33, 30), (12, 30))
    clips = cut_clips(cache, np.arange(2), fps=15, stride=1, form="paper")
    order = np.array([1, 0, 1])
    assert (clips[order].positions() == clips.positions()[order]).all()
    assert (clips[order].mask() == clips.mask()[order]).all()
    assert clips[order].video.tolist() == [1, 0, 1]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 70)), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(1, 100),
)
def test_windows_show_the_frames_of_their_clips(videos, step: int, stride: int) -> None:
    """Videos of some length, some twice, some after each other; clips at any stride."""
    rows = []
    for video, length in videos:
        cut = Cut(step, stride)
        for start in cut.starts(length).tolist():
            rows.append((video, 100 * video + start, step, cut.there(length), 30))
    clips = Clips(*np.array(rows).T)
    positions, found = windows(clips)
    shown = Windows(torch.from_numpy(positions)[:, None, None], found, 30)
    assert torch.equal(shown.gather(shown.frames)[..., 0, 0], torch.from_numpy(clips.positions()))


def test_clips_at_every_frame_share_them() -> None:
    clips = Clips(*np.array([(0, start, 1, 30, 30) for start in range(20)]).T)
    assert len(windows(clips)[0]) == 49


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 6), st.integers(0, 99))
def test_some_clips_of_each_video(video, count: int, seed: int) -> None:
    chosen = some_of_each(np.array(video, np.int64), count, np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == len(chosen)
    for one in set(video):
        assert sum(video[at] == one for at in chosen) == min(count, video.count(one))


def test_every_clip_is_drawn_as_often() -> None:
    random = np.random.default_rng(0)
    video = np.repeat([3, 1], [10, 5])
    drawn = np.bincount(np.concatenate([some_of_each(video, 2, random) for _ in range(3000)]))
    np.testing.assert_allclose(drawn / 3000, np.repeat([0.2, 0.4], [10, 5]), atol=0.05)
