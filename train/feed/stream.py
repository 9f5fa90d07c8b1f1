"""Clips of a video whose features come as it is read; a window of them is all that is held."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnact.cache.features import CHANNELS, LOCATIONS, FeatureCache
from attnact.train.config import CLIP_FRAMES
from attnact.train.feed.clips import Clips, Cut, Ints

CLIPS_AT_ONCE = 16  # through the model: 100 MB of feature cubes, whatever the run trained with
CACHED_AT_ONCE = 64  # frames


class Block(NamedTuple):
    """The next features of a video.

    frames: of the video, up to here; how many were read.
    positions: of the features in the video, ascending, (n,); no others than `needed` says.
    cubes: (n, 7, 7, C), of any float.
    """

    frames: int
    positions: Ints
    cubes: Tensor


def needed(cut: Cut, positions: Ints) -> Ints:
    """Those of these positions in a video at which some clip may have a frame."""
    on_grid = positions % np.gcd(cut.step, cut.stride) == 0
    in_clip = positions % cut.stride < cut.span  # or it lies between two clips
    wanted: Ints = positions[on_grid & in_clip]
    return wanted


def cached_blocks(cache: FeatureCache, video: int, cut: Cut) -> Iterator[Block]:
    """The features of a video that is in a cache."""
    start, frames = int(cache.first_frames[video]), cache.rows[video].frames
    for done in range(0, frames, CACHED_AT_ONCE):
        count = min(frames, done + CACHED_AT_ONCE)
        positions = needed(cut, np.arange(done, count))
        cubes = torch.from_numpy(cache.read(start + done, count - done)[positions - done])
        yield Block(count, positions, cubes)


def stream_clips(blocks: Iterable[Block], cut: Cut) -> Iterator[tuple[Clips, Tensor]]:
    """The clips that `cut_clips` makes of the video, a few at a time, as soon as they are whole.

    Gives the clips, of which `first` is a position in the video, and their cubes (B, T, L, C). A
    video without a frame has no clips.
    """
    held: dict[int, Tensor] = {}
    whole: list[tuple[int, Tensor]] = []
    start = count = 0
    for block in blocks:
        count = block.frames
        held.update(zip(block.positions.tolist(), block.cubes, strict=True))
        while start + cut.span <= count:
            whole.append((start, _stack(held, start, CLIP_FRAMES, cut)))
            start += cut.stride
            held = {position: cube for position, cube in held.items() if position >= start}
            if len(whole) == CLIPS_AT_ONCE:
                yield _batch(whole, CLIP_FRAMES, cut)
                whole = []
    there = CLIP_FRAMES
    if start == 0 < count:  # too short for a whole one
        there = cut.there(count)
        whole.append((start, _stack(held, start, there, cut)))
    if whole:
        yield _batch(whole, there, cut)


def _stack(held: dict[int, Tensor], start: int, there: int, cut: Cut) -> Tensor:
    steps = np.minimum(np.arange(CLIP_FRAMES), there - 1)
    return torch.stack([held[position] for position in (start + cut.step * steps).tolist()])


def _batch(whole: list[tuple[int, Tensor]], there: int, cut: Cut) -> tuple[Clips, Tensor]:
    first = np.array([start for start, _ in whole], np.int64)
    same = np.ones_like(first)
    clips = Clips(0 * same, first, cut.step * same, there * same, cut.valid(there) * same)
    X = torch.stack([cubes for _, cubes in whole]).float()
    return clips, X.view(len(whole), CLIP_FRAMES, LOCATIONS, CHANNELS)
