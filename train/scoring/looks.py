"""Where a model looks in whole videos, and how well that agrees with something else.

Two maps agree for reasons that say nothing of the moment: both like the centre, say. So agreement
comes with a control, of the same maps at other moments or in other videos; what it has over its
control is the finding.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from attnact.cache.features import LOCATIONS, ROWS, FeatureCache
from attnact.machine.progress import progress
from attnact.model.models import Model
from attnact.train.config import CLIP_FRAMES
from attnact.train.feed.clips import Clips, Ints
from attnact.train.feed.places import FeatureStore
from attnact.train.feed.store import batches
from attnact.train.scoring.scores import Floats

FLAT = 1e-6  # of a map's largest value: what differs by less is equal but for rounding

CENTRE_WIDTH = ROWS / 4  # standard deviation of the centre map, in locations

Maps = npt.NDArray[Any]  # (..., L), of any kind of float


class VideoMaps(NamedTuple):
    """Where a model looks in one video.

    frames: that it looked at, as positions in the video, ascending, (n,).
    maps: the attention map of each, (n, L), float32.
    """

    frames: Ints
    maps: npt.NDArray[np.float32]


class Agreement(NamedTuple):
    """How well two things agree, and the control; NaN where a video tells neither.

    same: mean over the frames of a video, of maps that belong together, (V,).
    other: likewise, of maps that do not belong together, (V,).
    """

    same: Floats
    other: Floats


def frame_maps(
    cache: FeatureCache, model: Model, store: FeatureStore, clips: Clips, batch_size: int
) -> list[VideoMaps]:
    """Where a model looks in each frame of the clips' videos, in the order of `np.unique`.

    A frame that stands in several clips has the mean of their maps. The repeats that fill up a
    short clip are no frames, whether or not they count in the score.

    Args:
        cache: that the clips were cut from.
        model: in any mode; it is left as it was.
        store: holds the features of the clips.
        clips: of these videos.
        batch_size: clips at once.
    """
    videos, row = np.unique(clips.video, return_inverse=True)
    starts = np.cumsum([0, *cache.frame_counts[videos]])  # of the videos in `sums`
    places = clips.positions() + (starts[:-1] - cache.first_frames[videos])[row][:, None]
    shown = np.arange(CLIP_FRAMES) < clips.frames[:, None]
    sums, counts = torch.zeros(int(starts[-1]), LOCATIONS), np.zeros(starts[-1])
    done, was_training = 0, model.training
    model.eval()
    with torch.inference_mode(), progress("looking", len(clips), "clips") as advance:
        for batch in batches(store, clips, None, batch_size):
            here = slice(done, done + len(batch.video))
            place = places[here][shown[here]]
            maps = model(batch.X, batch.mask)[1].cpu()[torch.from_numpy(shown[here])]
            sums.index_add_(0, torch.from_numpy(place), maps)
            counts += np.bincount(place, minlength=len(counts))
            done = here.stop
            advance(len(batch.video), "")
    model.train(was_training)
    looks = []
    for start, stop in pairwise(starts.tolist()):
        frames = np.flatnonzero(counts[start:stop])
        total, times = sums.numpy()[start + frames], counts[start + frames]
        looks.append(VideoMaps(frames, total / times[:, None].astype(np.float32)))
    return looks


def agreement(a: Maps, b: Maps) -> Floats:
    """The correlation of maps (..., L) over the locations, (...); they broadcast.

    NaN where one of them is flat: looking everywhere alike is no bad guess, but none.
    """
    result: Floats = (_unit(a) * _unit(b)).sum(-1)
    return result


def centre_map() -> Floats:
    """A map (L,) of the habit to look at the middle: a Gaussian a quarter of a side wide."""
    offset = np.arange(ROWS) - (ROWS - 1) / 2
    side = np.exp(-0.5 * (offset / CENTRE_WIDTH) ** 2)
    centre: Floats = np.outer(side, side).ravel()
    centre /= centre.sum()
    return centre


def centre_agreement(looks: Sequence[VideoMaps]) -> Floats:
    """How well each video's maps agree with the middle, mean over its frames, (V,)."""
    return _known_mean([agreement(maps, centre_map()) for _, maps in looks])


def motion_agreement(looks: Sequence[VideoMaps], motion: Sequence[Maps]) -> Agreement:
    """How well each video's maps agree with the motion at their frames.

    The control is every map with the motion at the video's other frames: exactly the mean over
    all ways to shuffle the maps in time. What does not change over the video, such as a liking
    for the centre, has as much of it. Frames of flat maps are left out, and videos with fewer than
    two frames left.

    Args:
        looks: into each video.
        motion: maps of every frame of each video, (T, L).
    """
    found = np.full((2, len(looks)), np.nan)
    for v, ((frames, maps), moving) in enumerate(zip(looks, motion, strict=True)):
        a, b = _both_known(np.stack((_unit(maps), _unit(moving[frames]))))
        n = len(a)
        if n > 1:
            same = (a * b).sum()
            found[:, v] = same / n, (a.sum(0) @ b.sum(0) - same) / (n * (n - 1))
    return Agreement(*found)


def pair_agreement(models: Sequence[Sequence[VideoMaps]]) -> dict[tuple[int, int], Agreement]:
    """How well each two of some models agree, at the frames that all of them looked at.

    The control is a map of the one model with a map of the other in another video, any frame of it
    and any video alike; it has the habits, of one model and of all, and nothing of what is seen.

    Args:
        models: the looks of each into the same videos: models of other seeds, or frame rates.
    """
    means = np.full((len(models), len(models[0]), LOCATIONS), np.nan)  # over the frames
    pairs = list(combinations(range(len(models)), 2))
    same = np.full((len(pairs), len(models[0])), np.nan)
    for v, looks in enumerate(zip(*models, strict=True)):
        units = _both_known(_at_common_frames(looks))
        if units.shape[1]:
            means[:, v] = units.mean(1)
            same[:, v] = [(units[i] * units[j]).sum(-1).mean() for i, j in pairs]
    found = {}
    for p, (i, j) in enumerate(pairs):
        other = (_elsewhere(means[i], means[j]) + _elsewhere(means[j], means[i])) / 2
        found[i, j] = Agreement(same[p], other)
    return found


def seed_agreement(models: Sequence[Sequence[VideoMaps]]) -> Agreement:
    """How well models that differ in their seed agree: the mean over all pairs of them.

    Args:
        models: the looks of each, two or more, into the same videos.
    """
    pairs = pair_agreement(models).values()
    return Agreement(*np.mean(list(pairs), axis=0))


def _unit(maps: Maps) -> Floats:
    """Maps (..., L) less their mean and of length 1: their products are correlations."""
    wide = np.asarray(maps, np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    flat = np.ptp(wide, axis=-1, keepdims=True) <= FLAT * np.abs(wide).max(-1, keepdims=True)
    length = np.where(flat, np.nan, np.linalg.norm(centred, axis=-1, keepdims=True))
    units: Floats = centred / length
    return units


def _both_known(units: Floats) -> Floats:
    """Of maps (K, n, L), those frames at which none of the K is flat."""
    return units[:, ~np.isnan(units).any((0, 2))]


def _at_common_frames(looks: Sequence[VideoMaps]) -> Floats:
    """The maps of K models at the frames they all looked at, as `_unit`s, (K, n, L)."""
    common = looks[0].frames
    for other in looks[1:]:
        common = np.intersect1d(common, other.frames, assume_unique=True)
    return np.stack([_unit(it.maps[np.searchsorted(it.frames, common)]) for it in looks])


def _elsewhere(a: Floats, b: Floats) -> Floats:
    """The product of each video's row of a (V, L) with the mean of the other videos' rows of b."""
    known = ~np.isnan(b[:, 0])
    others = known.sum() - 1
    if others < 1:
        return np.full(len(a), np.nan)
    result: Floats = (a * (b[known].sum(0) - b)).sum(-1) / others
    return result


def _known_mean(parts: Sequence[Floats]) -> Floats:
    """The mean of what is not NaN in each part; NaN where there is nothing."""
    known = [part[~np.isnan(part)] for part in parts]
    return np.array([part.mean() if len(part) else np.nan for part in known])
