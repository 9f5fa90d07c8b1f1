"""Videos cut into clips of 30 frames; a clip is a row of numbers until its features are read."""

from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import numpy as np
import numpy.typing as npt

from attnact.cache.features import FeatureCache
from attnact.model.windows import Window
from attnact.train.config import CLIP_FRAMES, TrainConfig
from attnact.vocabulary import ClipForm

Ints = npt.NDArray[np.int64]

UNKNOWN_RATE = 30.0  # frames a second of a video whose file does not tell


@dataclass(frozen=True)
class Clips:
    """Clips of some videos of a cache, in the videos' order; one entry a clip.

    video: the position of the clip's video in the cache.
    first: the clip's first frame, as a position in the cache's `features`.
    step: cached frames from one frame of the clip to the next.
    frames: distinct frames; fewer than T in a short video, whose last frame is repeated.
    valid: steps that count in loss and score: `frames`, or T where repeats are kept.
    """

    video: Ints
    first: Ints
    step: Ints
    frames: Ints
    valid: Ints

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, chosen: Ints) -> "Clips":
        """The clips at these positions, in this order."""
        return Clips(
            self.video[chosen],
            self.first[chosen],
            self.step[chosen],
            self.frames[chosen],
            self.valid[chosen],
        )

    def positions(self) -> Ints:
        """The position in the cache's `features` of every frame of every clip, (clips, T)."""
        t = np.minimum(np.arange(CLIP_FRAMES), self.frames[:, None] - 1)
        return self.first[:, None] + self.step[:, None] * t

    def mask(self) -> npt.NDArray[np.float32]:
        """1 for each step that counts, (clips, T)."""
        return (np.arange(CLIP_FRAMES) < self.valid[:, None]).astype(np.float32)


def some_of_each(video: Ints, count: int, random: np.random.Generator) -> Ints:
    """The positions of `count` clips of each video, or all it has, drawn without replacement.

    video: that each clip is of, (clips,).
    """
    order = np.lexsort((random.random(len(video)), video))  # each video's clips, shuffled
    start = np.searchsorted(video[order], video[order])
    chosen: Ints = np.sort(order[np.arange(len(order)) - start < count])
    return chosen


def windows(clips: Clips) -> tuple[Ints, list[Window]]:
    """The frames of these clips, as positions in the cache's `features`, and the clips over them.

    What clips of a video share is there once, as long as they stand in order and equally apart.
    """
    positions, found, count = [], [], 0
    stride = np.diff(clips.first)
    alike = np.stack((clips.video, clips.step, clips.frames))
    border = (np.diff(alike) != 0).any(0)
    border[1:] |= ~border[:-1] & (np.diff(stride) != 0)
    borders = [0, *(np.flatnonzero(border) + 1).tolist(), len(clips)]
    for start, stop in pairwise(borders):
        first, step, number = clips.first[start:stop], int(clips.step[start]), stop - start
        apart = int(first[1] - first[0]) if number > 1 else step
        grid = gcd(apart, step) or 1
        frames = np.arange(first[0], first[-1] + (CLIP_FRAMES - 1) * step + 1, grid)
        window = Window(count, number, apart // grid, step // grid)
        if clips.frames[start] < CLIP_FRAMES or not 0 < len(frames) < CLIP_FRAMES * number:
            frames = clips.positions()[start:stop].ravel()
            window = Window(count, number, CLIP_FRAMES, 1)
        positions.append(frames)
        found.append(window)
        count += len(frames)
    return np.concatenate(positions), found


@dataclass(frozen=True)
class Cut:
    """How a video is cut into clips, however long it turns out to be; positions are the video's.

    step: frames of the video from one frame of a clip to the next.
    stride: frames of the video from the start of one clip to the start of the next.
    """

    step: int
    stride: int
    form: ClipForm = "paper"

    @property
    def span(self) -> int:
        """Frames of the video that a whole clip takes up."""
        paper = (CLIP_FRAMES - 1) * self.step + 1
        return paper if self.form == "paper" else CLIP_FRAMES * self.step

    def starts(self, count: int) -> Ints:
        """Where the clips of a video of `count` frames start; the first whether or not it fits."""
        return np.arange(0, max(0, count - self.span) + 1, self.stride)

    def there(self, count: int) -> int:
        """Distinct frames of the first clip of a video of `count` frames."""
        return min(CLIP_FRAMES, (count - 1) // self.step + 1)

    def valid(self, there: int) -> int:
        """Steps that count in a clip of so many distinct frames."""
        return there if self.form == "paper" else CLIP_FRAMES


def cut_clips(
    cache: FeatureCache, videos: Ints, *, fps: float, stride: int, form: ClipForm
) -> Clips:
    """The clips of these videos: one from every `stride`-th frame on which a whole clip fits.

    A video with fewer than 30 frames at this frame rate gives one clip. The frame rate of a video
    whose file does not tell it is taken to be 30. The form "released" cuts as the released
    `DataHandler` does: every video has 30 frames a second, a clip takes up the frames after its
    last one too, and the repeats of a short video count.
    """
    rows = []
    for position in videos.tolist():
        video = cache.rows[position]
        count, every = video.frames, step_at(video.frame_rate, fps, form)
        cut = Cut(every, stride, form)
        starts, there = cut.starts(count), cut.there(count)
        row = np.empty((len(starts), 5), np.int64)
        row[:] = position, 0, every, there, cut.valid(there)
        row[:, 1] = cache.first_frames[position] + starts
        rows.append(row)
    return Clips(*(np.concatenate(rows).T if rows else np.empty((5, 0), np.int64)))


def step_at(frame_rate: float, fps: float, form: ClipForm) -> int:
    """Frames of a video of this frame rate, 0 if unknown, from one frame of a clip to the next;
    see `cut_clips`."""
    return max(1, round((frame_rate or UNKNOWN_RATE) / fps) if form == "paper" else int(30 / fps))


def scored_cut(frame_rate: float, config: TrainConfig) -> Cut:
    """How a run cuts a video of this frame rate to score it."""
    step = step_at(frame_rate, config.test_fps or config.fps, config.clip_form)
    return Cut(step, config.test_stride, config.clip_form)


def scored_clips(
    cache: FeatureCache, videos: Ints, config: TrainConfig, fps: float | None = None
) -> Clips:
    """The clips by which a run's videos are scored, at its frame rate or another."""
    rate = fps or config.test_fps or config.fps
    stride, form = config.test_stride, config.clip_form
    return cut_clips(cache, videos, fps=rate, stride=stride, form=form)
