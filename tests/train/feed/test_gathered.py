"""Clips that are gathered as they are looked at, against numpy on the arrays of the cache."""

from typing import Any

import numpy as np
import pytest
import torch

from attnact.cache.features import FeatureCache
from attnact.model.windows import Window
from attnact.train.feed.clips import Clips, cut_clips
from attnact.train.feed.clips import windows as windows_of
from attnact.train.feed.gathered import Gathered
from attnact.train.feed.places import MemoryStore
from attnact.train.feed.widen import FRAMES_AT_ONCE

CPU = torch.device("cpu")
VIDEOS = np.array([1, 4, 8, 11])  # of which some are shorter than a clip


@pytest.fixture(params=["float16", "uint8"])
def many(request: pytest.FixtureRequest, make_cache, tmp_path) -> FeatureCache:
    made: FeatureCache = make_cache(tmp_path / "x.h5", frames=lambda n: 40 - n, dtype=request.param)
    return made


def gather(cache: FeatureCache, clips: Clips, shared: bool) -> tuple[Gathered, np.ndarray]:
    """The clips, with NaN where all frames would go; and what they should be, (B, T, L, C)."""
    positions, over = clips.positions().ravel(), [Window(0, len(clips), 30, 1)]
    if shared:
        positions, over = windows_of(clips)
    room = torch.full((len(positions), 49, 1024), torch.nan)
    found = Gathered(MemoryStore(cache, VIDEOS, CPU, CPU), positions, over, room)
    whole = cache.read(0, cache.frames).reshape(-1, 49, 1024).astype(np.float32)
    return found, whole[clips.positions()]


def looked_at(clips: Gathered, t: int) -> tuple[list[int], np.ndarray]:
    parts = [part.numpy().copy() for part in clips.at(t)]
    return [len(part) for part in parts], np.concatenate(parts)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("stride", [1, 45])
def test_frames(many: FeatureCache, shared: bool, stride: int) -> None:
    clips = cut_clips(many, VIDEOS, fps=30, stride=stride, form="paper")
    found, X = gather(many, clips, shared)
    np.testing.assert_allclose(found.gather(found.means), X.mean(2), rtol=1e-5, atol=1e-7)
    for t in (0, 17, 29):
        counts, frames = looked_at(found, t)
        np.testing.assert_allclose(frames, X[:, t], rtol=1e-6)
        assert shared or max(counts) == min(FRAMES_AT_ONCE, len(clips))
    again = found.gather(found.frames)
    np.testing.assert_allclose(again, X, rtol=1e-6)


@pytest.mark.parametrize(("shared", "stride"), [(False, 1), (True, 45), (True, 1)])
def test_frames_are_widened_at_once_only_where_clips_share_them(
    cache: FeatureCache, shared: bool, stride: int
) -> None:
    clips = cut_clips(cache, VIDEOS, fps=30, stride=stride, form="paper")
    found, _ = gather(cache, clips, shared)
    looked_at(found, 3)
    assert found._frames.isnan().all() != found.overlap
    assert found.overlap == (shared and stride == 1)


@pytest.mark.parametrize("cubes", [np.float16, np.float32])
def test_means_of_float_caches(make_cache, tmp_path, cubes: Any) -> None:
    """Of a video of more frames than are averaged at once, and of one that the store has not."""

    def made(video: int, frames: int) -> np.ndarray:
        return np.random.default_rng(video).normal(size=(frames, 7, 7, 1024)).astype(cubes)

    cache = make_cache(
        tmp_path / "x.h5", videos=3, frames=lambda n: 600 if n == 2 else 5, cubes=made
    )
    store = MemoryStore(cache, np.array([2, 0]), CPU, CPU)
    positions = np.array([609, 3, 10, 609])
    whole = np.concatenate([made(0, 5), made(1, 5), made(2, 600)])
    expected = whole[positions].astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(store.means(positions), expected, atol=1e-6)
