"""Maps of whole videos and their agreement: against slow loops, and maps whose answer is known."""

from itertools import permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from attnact.cache.features import FeatureCache
from attnact.model.windows import Windows
from attnact.train.feed.clips import cut_clips
from attnact.train.feed.store import open_store
from attnact.train.scoring.looks import (
    VideoMaps,
    agreement,
    centre_agreement,
    centre_map,
    frame_maps,
    motion_agreement,
    pair_agreement,
    seed_agreement,
)

CPU = torch.device("cpu")
UNIFORM = np.full(49, 1 / 49, np.float32)


class LooksByTheStep(nn.Module):
    """Looks at what the frame shows, harder at each step: a frame's clips disagree."""

    config = SimpleNamespace(classes=3)

    def forward(self, clips: Windows, mask: Tensor) -> tuple[Tensor, Tensor]:
        assert not self.training
        X = clips.gather(clips.frames)
        ramp = torch.arange(1, 1 + X.shape[1])[:, None]
        return X[:, :, 0, :3], (X[..., 520] * ramp).softmax(-1)


@pytest.mark.parametrize("place", ["host", "disk"])
@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize(("fps", "stride"), [(30, 1), (15, 1), (6, 4), (30, 3)])
def test_frame_maps(cache: FeatureCache, fps: float, stride: int, form: Any, place: Any) -> None:
    """Against a loop over the steps of each clip, each frame's first look in it."""
    videos = np.array([9, 1, 8, 3, 4])  # of 30, 30, 33 and 12 frames
    clips = cut_clips(cache, videos, fps=fps, stride=stride, form=form)
    model = LooksByTheStep().train()
    store = open_store(cache, videos, place, CPU)
    found = frame_maps(cache, model, store, clips, 3)  # type: ignore[arg-type]
    assert model.training  # left as it was
    assert len(found) == len(videos)
    for video, (frames, maps) in zip(sorted(videos), found, strict=True):
        count, step = int(cache.frame_counts[video]), round(30 / fps)
        cubes = cache.read(int(cache.first_frames[video]), count).reshape(count, 49, 1024)
        seen: dict[int, list[np.ndarray]] = {}
        for start in range(0, max(1, count - 29 * step), stride):
            for t, frame in enumerate(range(start, count, step)[:30]):
                e = np.exp(cubes[frame, :, 520].astype(float) * (t + 1))
                seen.setdefault(frame, []).append(e / e.sum())
        assert frames.tolist() == sorted(seen)
        assert maps.dtype == np.float32
        expected = [np.mean(seen[frame], axis=0) for frame in sorted(seen)]
        np.testing.assert_allclose(maps, expected, rtol=1e-4)


def some_maps(*shape: int, seed: int = 0) -> np.ndarray:
    """Attention maps (*shape, L), no two alike."""
    e = np.exp(np.random.default_rng(seed).normal(size=(*shape, 49)))
    return (e / e.sum(-1, keepdims=True)).astype(np.float32)


def shown(maps: np.ndarray) -> VideoMaps:
    return VideoMaps(np.arange(len(maps)), maps)


def test_agreement_is_the_correlation() -> None:
    a, b = some_maps(3, 5), some_maps(3, 5, seed=1)
    expected = np.array([np.corrcoef(a[i], b[i])[0, 1] for i in np.ndindex(3, 5)]).reshape(3, 5)
    np.testing.assert_allclose(agreement(a, b), expected, rtol=1e-6)
    np.testing.assert_allclose(agreement(a, b[0, 0])[0, 0], expected[0, 0], rtol=1e-6)


@given(
    maps=arrays(np.float32, (2, 49), elements=st.floats(0, 1, width=16)), scale=st.floats(0.1, 9)
)
def test_agreement_knows_neither_scale_nor_height(maps: np.ndarray, scale: float) -> None:
    a, b = maps.astype(float)
    if np.ptp(a) < 1e-3 or np.ptp(b) < 1e-3:
        return
    found = agreement(a, b)
    assert -1 - 1e-9 <= found <= 1 + 1e-9
    assert found == pytest.approx(agreement(b, a))
    assert agreement(a, a * scale + 0.3) == pytest.approx(1)
    assert agreement(a, 0.3 - a * scale) == pytest.approx(-1)
    assert agreement(a * scale + 0.1, b) == pytest.approx(found, abs=1e-6)


def test_a_flat_map_agrees_with_nothing() -> None:
    rounding = UNIFORM * (1 + 1e-7 * np.arange(49) % 3e-7).astype(np.float32)
    assert np.ptp(rounding) > 0
    flat = np.stack([UNIFORM, rounding, np.zeros(49)])
    assert np.isnan(agreement(flat, some_maps(3))).all()
    assert np.isnan(agreement(some_maps(3), flat)).all()
    hardly = UNIFORM.astype(float) + np.linspace(0, 1e-6, 49)
    assert agreement(hardly, np.arange(49)) == pytest.approx(1)


def test_centre() -> None:
    centre = centre_map().reshape(7, 7)
    assert centre.sum() == pytest.approx(1)
    assert centre.argmax() == 24
    assert np.array_equal(centre, centre.T)
    assert np.allclose(centre, centre[::-1])
    assert centre[3, 3] / centre[3, 6] == pytest.approx(np.exp(0.5 * (3 / 1.75) ** 2))
    still = shown(np.stack([centre_map(), UNIFORM, 1 - centre_map(), centre_map()]))
    found = centre_agreement([still, shown(some_maps(4)), shown(UNIFORM[None])])
    assert found[0] == pytest.approx(1 / 3)  # 1, −1 and 1; the flat one does not count
    assert found[1] == pytest.approx(agreement(some_maps(4), centre_map()).mean())
    assert np.isnan(found[2])


def test_motion_agreement_is_over_the_mean_of_all_shuffles() -> None:
    maps, motion = some_maps(5), some_maps(9, seed=1)
    frames = np.array([0, 3, 4, 7, 8])
    same, other = motion_agreement([VideoMaps(frames, maps)], [motion])
    moving = motion[frames]
    assert same[0] == pytest.approx(agreement(maps, moving).mean())
    orders = [list(p) for p in permutations(range(5)) if all(i != p[i] for i in range(5))]
    shuffles = [agreement(maps[order], moving).mean() for order in orders]
    assert len(orders) == 44
    assert other[0] == pytest.approx(np.mean(shuffles))


def test_what_follows_the_motion_and_what_only_likes_its_place() -> None:
    """Three videos: looks at what moves; looks where mostly something moves; looks anywhere."""
    rng = np.random.default_rng(0)
    place = rng.choice([23, 24, 25, 31], 200)
    motion = np.eye(49)[place] + 0.01 * rng.random((200, 49))
    static = np.repeat(motion.mean(0)[None], 200, axis=0)
    models = [motion, static, some_maps(200)]
    same, other = motion_agreement([shown(maps) for maps in models], [motion] * 3)
    assert same[0] == pytest.approx(1)
    assert other[0] < 0.3
    assert same[1] > 0.4
    assert same[1] == pytest.approx(other[1])
    assert same[2] == pytest.approx(0, abs=0.05)


def test_motion_agreement_leaves_out_flat_maps() -> None:
    maps, motion = some_maps(6), some_maps(6, seed=1)
    maps[2], motion[0] = UNIFORM, 0
    left = [1, 3, 4, 5]
    found = motion_agreement([shown(maps)], [motion])
    expected = motion_agreement([shown(maps[left])], [motion[left]])
    assert np.ravel(found) == pytest.approx(np.ravel(expected))
    two = motion_agreement([shown(maps[:2])], [motion[4:]])
    crossed = motion_agreement([shown(maps[:2])], [motion[[5, 4]]])
    assert np.ravel(two) == pytest.approx(np.ravel(crossed)[::-1])
    alone = motion_agreement([shown(maps[:2]), shown(maps[:0])], [motion[:2], motion])
    assert np.isnan(alone).all()


def naive_control(a: list[VideoMaps], b: list[VideoMaps]) -> list[float]:
    """Every map of a video with every map of each other video, both ways."""
    found = []
    for v in range(len(a)):
        of_videos = []
        for u in set(range(len(a))) - {v}:
            pairs = [(x, y) for x in a[v].maps for y in b[u].maps]
            pairs += [(y, x) for x in b[v].maps for y in a[u].maps]
            of_videos.append(np.mean([agreement(x, y) for x, y in pairs]))
        found.append(float(np.mean(of_videos)))
    return found


def test_pair_agreement() -> None:
    """Of three models, in four videos of different length; against a loop over all pairs."""
    models = [[shown(some_maps(n, seed=10 * m + n)) for n in (2, 5, 3, 4)] for m in range(3)]
    found = pair_agreement(models)
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    for (i, j), (same, other) in found.items():
        for v in range(4):
            each = agreement(models[i][v].maps, models[j][v].maps)
            assert same[v] == pytest.approx(each.mean())
        assert other == pytest.approx(naive_control(models[i], models[j]))
    same, other = seed_agreement(models)
    assert same == pytest.approx(np.mean([pair.same for pair in found.values()], axis=0))
    assert other == pytest.approx(np.mean([pair.other for pair in found.values()], axis=0))


def test_pairs_are_of_frames_that_all_looked_at() -> None:
    every = some_maps(20)
    steps = [1, 2, 5]
    models = [[VideoMaps(np.arange(0, 20, k), every[::k])] * 2 for k in steps]
    for pair in pair_agreement(models).values():
        assert pair.same == pytest.approx([1, 1])  # frames 0 and 10
        assert pair.other == pytest.approx([(1 + agreement(every[0], every[10])) / 2] * 2)


def test_one_habit_is_no_agreement() -> None:
    """Two models that look at one place whatever they see, and two that see the same."""
    habit = np.repeat(some_maps(1), 30, axis=0) + some_maps(5, 30, seed=1) * 1e-3
    same, other = seed_agreement([[shown(maps) for maps in habit]] * 2)
    assert other == pytest.approx(same, abs=0.01)
    seen = some_maps(5, 30)
    same, other = seed_agreement([[shown(maps) for maps in seen]] * 2)
    assert same == pytest.approx(np.ones(5))
    assert other == pytest.approx(np.zeros(5), abs=0.02)


def test_pairs_leave_out_flat_maps_and_videos_without_common_frames() -> None:
    a = [shown(some_maps(4, seed=m)) for m in range(4)]
    b = [shown(some_maps(4, seed=9 + m)) for m in range(4)]
    a[1].maps[2] = UNIFORM
    a[3] = VideoMaps(np.arange(10, 14), a[3].maps)
    pair = pair_agreement([a, b])[0, 1]
    left = np.array([0, 1, 3])
    a[1], b[1] = shown(a[1].maps[left]), shown(b[1].maps[left])
    expected = pair_agreement([a[:3], b[:3]])[0, 1]
    assert np.array(pair)[:, :3] == pytest.approx(np.array(expected))
    assert np.isnan(np.array(pair)[:, 3]).all()
    alone = pair_agreement([a[:1], b[:1]])[0, 1]
    assert alone.same == pytest.approx(agreement(a[0].maps, b[0].maps).mean())
    assert np.isnan(alone.other).all()
