"""Where a run looks in a video, drawn over its frames: a strip, a movie, a GIF."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

import numpy as np
from PIL import Image

from attnact.cache.features import FeatureCache
from attnact.cache.provenance import RANDOM_WEIGHTS, resize_of
from attnact.errors import AttnactError, RunError, VideoError
from attnact.extract.datasets.disk import videos_meant
from attnact.extract.frames.resize import seen_part
from attnact.extract.frames.video import Frame, read_frames
from attnact.recognise import Recogniser
from attnact.train.feed.clips import Ints
from attnact.train.pictures import movie, plots
from attnact.train.scoring.one_video import Attention, ScoredClip
from attnact.train.selection import fold_videos
from attnact.vocabulary import Split

SHOWN = 8  # frames of a strip, spread over the clip
SCORES = 4  # classes whose scores a movie shows
KINDS = ("png", "mp4", "gif")


@dataclass(frozen=True)
class Video:
    """A video to draw.

    name: for people; as the cache has it, where it is there.
    source: the file.
    cache, position: where its features are; None where they are to be made.
    """

    name: str
    source: Path
    cache: FeatureCache | None = None
    position: int = 0


def find_videos(recogniser: Recogniser, names: Sequence[str]) -> list[Video]:
    """The videos that are meant.

    Args:
        recogniser: of the run.
        names: paths as the run's cache has them, files, folders or lists; none for one test video
            of each class.

    Raises:
        RunError: there is no such video, or the model has no attention.
        CacheError: no names are given, and the cache is not there, or damaged.
        DatasetError: a folder or a list holds no videos.
    """
    run = recogniser.run
    if not recogniser.attends:
        raise RunError(f"{run.folder}: its model has no attention to draw")
    cache = None
    try:
        cache = run.open_cache()
    except AttnactError as error:  # a file can do without it
        if not names:
            raise
        for name in names:
            if not Path(name).exists():
                why = f"no such file; nor can it be a path in the cache: {error}"
                raise RunError(f"{name}: {why}") from error
    if cache is not None and not names:
        test = fold_videos(cache, run.config.fold, Split.TEST)
        return [_cached(cache, video) for video in _one_a_class(cache, test)]
    found = [video for name in names for video in _meant(recogniser, cache, name)]
    files = [video.source.absolute() for video in found if video.cache is None]
    shared = commonpath([file.parent for file in files]) if files else ""
    return [
        video
        if video.cache is not None
        else Video(video.source.absolute().relative_to(shared).as_posix(), video.source)
        for video in found
    ]


def missing_encoder() -> str:
    """The encoder that PyAV lacks for a movie; empty where it has it."""
    return "" if movie.can_write_mp4() else movie.CODEC


def draw_attention(
    recogniser: Recogniser, video: Video, out: Path, gif: bool = False
) -> list[Path]:
    """Draws a video into `out`; gives the files.

    A file that is in no cache is decoded twice: for its clips, then for its frames.

    `<video>.png` is a strip of frames from the clip in the middle, each over the same frame as the
    model saw it. `<video>.mp4`, where PyAV can write it, is the whole video; a frame that stands in
    several clips has the mean of their maps, one in none those of the last before it.
    `<video>.gif` is the strip's clip, moving.

    Raises:
        RunError: the video has other frames than when its features were made.
        VideoError: the video file is missing or broken.
        WeightsError: its features cannot be made.
    """
    out.mkdir(parents=True, exist_ok=True)
    middle = Middle()
    attention = recogniser.sum_up_attention(middle.of(_clips(recogniser, video)))
    clip = middle.clip
    assert clip.maps is not None
    title = _title(recogniser, video, attention)
    shown = np.argsort(-attention.prediction.scores, kind="stable")[:SCORES]
    steps = np.linspace(0, len(clip.positions) - 1, min(SHOWN, len(clip.positions)))
    steps = steps.round().astype(int)
    strip: list[Frame] = []
    moving: list[Image.Image] = []
    png, mp4, animation = (out / f"{video.name.replace('/', '_')}.{kind}" for kind in KINDS)
    with ExitStack() as stack:
        add = None
        if movie.can_write_mp4():
            add = stack.enter_context(movie.writing_mp4(mp4, attention.frame_rate))
            draw = _drawing(attention, title, recogniser.classes, shown)
        draw_clip = _drawing(clip, title, recogniser.classes, shown)
        for i, frame in enumerate(_frames(recogniser, video)):
            if i in clip.positions[steps]:
                strip.append(frame)
            if gif and i in clip.positions:
                moving.append(draw_clip(i, frame))
            if add is not None:
                add(draw(i, frame))
    labels = [f"frame {i}" for i in clip.positions[steps]]
    plots.plot_attention(png, np.stack(strip), clip.maps[steps], labels, title)
    if gif:
        start, end = clip.seconds
        movie.write_gif(animation, moving, (end - start) / len(moving))
    return [png, *([mp4] if add else []), *([animation] if gif else [])]


class Middle:
    """The middle one of the clips that go by, however many: off by a 64th of the video at most.

    Only so many are kept, as evenly as they go by: when there are more, every second one goes.
    """

    KEPT = 64

    def __init__(self) -> None:
        self._kept: list[ScoredClip] = []
        self._count, self._every = 0, 1

    def of(self, clips: Iterable[ScoredClip]) -> Iterator[ScoredClip]:
        """The same clips, looked at as they go by."""
        for clip in clips:
            if self._count % self._every == 0:
                self._kept.append(clip)
            if len(self._kept) > self.KEPT:
                self._kept, self._every = self._kept[::2], 2 * self._every
            self._count += 1
            yield clip

    @property
    def clip(self) -> ScoredClip:
        """The kept one that is nearest to the middle."""
        return self._kept[round((self._count - 1) / 2 / self._every)]


def _clips(recogniser: Recogniser, video: Video) -> Iterator[ScoredClip]:
    """The clips of the video; see `Recogniser`."""
    if video.cache is not None:
        yield from recogniser.scored_clips_in(video.cache, video.position)
        return
    with closing(recogniser.scored_clips([video.source])) as videos:
        yield from next(videos)


def _frames(recogniser: Recogniser, video: Video) -> Iterator[Frame]:
    """What the backbone saw of each frame of the video."""
    count, how = 0, resize_of(recogniser.features)
    if video.cache is not None and not video.source.exists():
        raise VideoError(
            f"{video.name}: not in {video.cache.root} any more; to say where the videos are, type "
            "the `attnact features` that made the cache with their place as --videos and "
            f"--out {video.cache.path}, which makes nothing again"
        )
    changed = f"{video.source}: changed since its features were made"
    if video.cache is not None and video.cache.changed(video.position):
        raise VideoError(changed)
    for frame in read_frames(video.source):
        yield seen_part(frame, how)
        count += 1
    if video.cache is not None and count != video.cache.rows[video.position].frames:
        raise VideoError(changed)


def _drawing(
    look: Attention | ScoredClip, title: str, classes: Sequence[str], shown: Ints
) -> Callable[[int, Frame], Image.Image]:
    """What draws a frame, from its position in the video, with a map and scores of `look`."""
    assert look.maps is not None
    maps = look.maps
    scene = movie.Scene(title, plots.brightest(maps), [classes[n] for n in shown])

    def draw(position: int, frame: Frame) -> Image.Image:
        row = max(0, int(np.searchsorted(look.positions, position, "right")) - 1)
        scores = look.frame_scores[row, shown].tolist()
        return scene.draw(frame, maps[row], scores, position / look.frame_rate)

    return draw


def _title(recogniser: Recogniser, video: Video, attention: Attention) -> str:
    label = ""
    if video.cache is not None:
        label = f"{', '.join(video.cache.true_classes(video.position))}, "
    ((guess, score),) = attention.prediction.top()
    title = f"{video.name}: {label}taken for {guess} ({100 * score:.0f} %)"
    if recogniser.random_weights:
        title += f" ({RANDOM_WEIGHTS})"
    return title


def _cached(cache: FeatureCache, position: int) -> Video:
    name = cache.paths[position]
    return Video(name, cache.root / name, cache, position)


def _meant(recogniser: Recogniser, cache: FeatureCache | None, name: str) -> Iterator[Video]:
    """The videos that a name means; those that the cache has from there."""
    if cache is not None and name in cache.paths:
        yield _cached(cache, cache.paths.index(name))
        return
    if not Path(name).exists():
        where = recogniser.run.cache
        raise RunError(f"{where}: holds no video {name}, and there is no such file")
    known = {} if cache is None else {(cache.root / path).resolve(): path for path in cache.paths}
    for file in videos_meant(Path(name)):
        path = known.get(file.resolve())
        if cache is not None and path is not None:
            yield _cached(cache, cache.paths.index(path))
        else:
            yield Video(file.name, file)


def _one_a_class(cache: FeatureCache, videos: Ints) -> list[int]:
    """The first video of each class; one where several classes hold stands for each of them."""
    labels = cache.labels[videos]
    holds = labels.T > 0 if cache.multi_label else np.arange(len(cache.classes))[:, None] == labels
    return list(dict.fromkeys(int(videos[row.argmax()]) for row in holds if row.any()))
