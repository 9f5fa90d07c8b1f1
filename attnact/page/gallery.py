"""Test videos for the page: a few frames of each, and where each model looks in them."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from attnact.checkpoint import load_checkpoint
from attnact.errors import AttnactError, RunError
from attnact.extract.video import Frame, read_frames, seen_part
from attnact.features import FeatureCache
from attnact.motion import resize_of
from attnact.page.read import Predictions, Setting, ShownRun
from attnact.train.clips import Ints, scored_clips
from attnact.train.looks import Looks, frame_maps
from attnact.train.store import FeatureStore, open_store
from attnact.train.tables import listed

SHOWN = 8  # frames of a video
FRAME_BOX = 208, 160  # pixels, the width and the height that a frame must fit
QUALITY = 75  # of the JPEG; 24 videos of 8 frames are about 1 MB


class Guess(NamedTuple):
    """What a setting makes of a video, by the first of its runs that tests it.

    row: of the video in the run's predictions.
    """

    run: ShownRun
    predictions: Predictions
    row: int

    @property
    def confidence(self) -> float:
        """The highest score."""
        return float(self.predictions.scores[self.row].max())


class PoolVideo(NamedTuple):
    """A video that runs tested: where it stands in which cache, and what each setting guessed."""

    cache: FeatureCache
    position: int
    guesses: dict[int, Guess]


@dataclass(frozen=True)
class GalleryVideo:
    """A video on the page.

    frames: the positions in the video of those shown, ascending.
    strip: these frames side by side, a JPEG as data URI; `size` is of one, in pixels.
    guesses, maps: by the number of the setting; maps are (frames, L), of attention models alone.
    """

    path: str
    true: list[str]
    frames: list[int]
    strip: str
    size: tuple[int, int]
    guesses: dict[int, Guess]
    maps: dict[int, Looks]


def make_gallery(
    settings: Sequence[Setting], count: int, device: torch.device
) -> tuple[list[GalleryVideo], list[str]]:
    """At most `count` test videos, and a line for each thing that is missing."""
    notes: list[str] = []
    caches = _open_caches(settings, notes) if count else {}
    pool = _tested(settings, caches)
    there = {path: it for path, it in pool.items() if path.is_file()}
    if len(there) < len(pool):
        gone = [path for path in pool if path not in there]
        more = f" and {len(gone) - 1} more videos" if len(gone) > 1 else ""
        notes.append(f"Not in the gallery: {gone[0]}{more}: no such file")
    chosen = {path: there[path] for path in choose(there, count)}
    looks = _looks(settings, caches, list(chosen.values()), device, notes)
    found = []
    for path, tested in chosen.items():
        try:
            found.append(_video(path, tested, looks.get(path, {})))
        except (AttnactError, OSError) as error:
            notes.append(f"Not in the gallery: {error}")
    return found, notes


def choose(pool: Mapping[Path, PoolVideo], count: int) -> list[Path]:
    """At most `count` videos, from the classes in turn, and in each class right and wrong in turn.

    Where there are more classes than videos to show, they are spread over the list of classes.
    Right and wrong is what the first setting that tested the video got.
    """
    cells: dict[str, dict[bool, list[Path]]] = {}
    for path, tested in pool.items():
        guess = next(iter(tested.guesses.values()))
        name = ", ".join(guess.predictions.true(guess.row))
        right = guess.predictions.right(guess.row)
        cells.setdefault(name, {True: [], False: []})[right].append(path)
    queues = []
    for number, name in enumerate(sorted(cells)):
        first, second = (cells[name][right] for right in ((True, False), (False, True))[number % 2])
        both = min(len(first), len(second))
        mixed = [path for pair in zip(first, second, strict=False) for path in pair]
        queues.append(mixed + first[both:] + second[both:])
    if len(queues) > count:
        queues = [queues[i] for i in np.linspace(0, len(queues) - 1, count).round().astype(int)]
    longest = max(map(len, queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)][:count]


def _open_caches(settings: Sequence[Setting], notes: list[str]) -> dict[str, FeatureCache]:
    """Digest -> the cache, of those that are there and as they were."""
    found: dict[str, FeatureCache] = {}
    lost: dict[str, list[str]] = {}  # reason -> settings
    for setting in settings:
        run = setting.runs[0].run
        try:
            if run.cache_digest not in found:
                found[run.cache_digest] = run.open_cache()
        except AttnactError as error:
            lost.setdefault(str(error), []).append(setting.name)
    notes += [f"Not in the gallery: {listed(names)}: {why}" for why, names in lost.items()]
    return found


def _tested(
    settings: Sequence[Setting], caches: Mapping[str, FeatureCache]
) -> dict[Path, PoolVideo]:
    """Every test video of any run by its file, those of the first attention model first."""
    found: dict[Path, PoolVideo] = {}
    order = sorted(range(len(settings)), key=lambda i: settings[i].config.model != "attention")
    for number in order:
        for run in settings[number].runs:
            cache = caches.get(run.run.cache_digest)
            if cache is None or run.predictions is None:
                continue
            position = {path: i for i, path in enumerate(cache.paths)}
            for row, name in enumerate(run.predictions.videos):
                if name in position:
                    new = PoolVideo(cache, position[name], {})
                    tested = found.setdefault(cache.root / name, new)
                    tested.guesses.setdefault(number, Guess(run, run.predictions, row))
    return found


def _looks(
    settings: Sequence[Setting],
    caches: Mapping[str, FeatureCache],
    chosen: Sequence[PoolVideo],
    device: torch.device,
    notes: list[str],
) -> dict[Path, dict[int, Looks]]:
    """File -> number of the setting -> where it looks there, as far as models and features are."""
    wanted: dict[tuple[int, Path], tuple[ShownRun, list[str]]] = {}
    for tested in chosen:
        for number, guess in tested.guesses.items():
            if settings[number].config.model == "attention":
                key = number, guess.run.run.folder
                wanted.setdefault(key, (guess.run, []))[1].append(
                    guess.predictions.videos[guess.row]
                )
    stores: dict[str, FeatureStore] = {}
    found: dict[Path, dict[int, Looks]] = {}
    for (number, _), (run, names) in wanted.items():
        cache = caches[run.run.cache_digest]
        try:
            if cache.digest not in stores:
                stores[cache.digest] = _store(cache, wanted.values(), device)
            videos = np.sort([cache.paths.index(name) for name in names])
            for video, looks in zip(
                videos.tolist(), _maps(run, cache, stores[cache.digest], videos), strict=True
            ):
                found.setdefault(cache.root / cache.paths[video], {})[number] = looks
        except AttnactError as error:
            notes.append(f"{run.name} has no maps here: {error}")
    return found


def _store(
    cache: FeatureCache, wanted: Iterable[tuple[ShownRun, list[str]]], device: torch.device
) -> FeatureStore:
    names = {
        name for run, names in wanted if run.run.cache_digest == cache.digest for name in names
    }
    videos = np.sort([cache.paths.index(name) for name in names])
    return open_store(cache, videos, "auto", device)


def _maps(run: ShownRun, cache: FeatureCache, store: FeatureStore, videos: Ints) -> list[Looks]:
    """Where the run's model looks in each of the videos, in their order."""
    config, model = run.run.config, load_checkpoint(run.run.model, store.device).model
    clips = scored_clips(cache, videos, config)
    return frame_maps(cache, model, store, clips, config.batch_size)


def _video(path: Path, tested: PoolVideo, looks: Mapping[int, Looks]) -> GalleryVideo:
    """The frames are spread over those that the first model looked at.

    Of a model that looked at others, by another frame rate, the map nearest in time is taken.

    Raises:
        RunError: the file has fewer frames than it had.
        VideoError: the file is broken.
    """
    every = np.arange(tested.cache.rows[tested.position].frames)
    seen = next(iter(looks.values())).frames if looks else every
    steps = np.linspace(0, len(seen) - 1, min(SHOWN, len(seen))).round().astype(int)
    wanted = seen[steps]
    strip, size = _strip(path, wanted, tested.cache)
    maps = {}
    for number, (frames, of_frames) in looks.items():
        nearest = np.abs(frames - wanted[:, None]).argmin(1)
        maps[number] = Looks(frames[nearest], of_frames[nearest])
    guess = next(iter(tested.guesses.values()))
    true, name = guess.predictions.true(guess.row), guess.predictions.videos[guess.row]
    return GalleryVideo(name, true, wanted.tolist(), strip, size, tested.guesses, maps)


def _strip(path: Path, wanted: Ints, cache: FeatureCache) -> tuple[str, tuple[int, int]]:
    """These frames side by side, as far as the backbone saw of them, and the size of one."""
    read = islice(read_frames(path), int(wanted[-1]) + 1)
    keep = set(wanted.tolist())
    frames = [_small(seen_part(it, resize_of(cache))) for i, it in enumerate(read) if i in keep]
    if len(frames) < len(wanted):
        raise RunError(f"{path}: changed since its features were made")
    width, height = frames[0].size
    strip = Image.new("RGB", (width * len(frames), height))
    for i, frame in enumerate(frames):
        strip.paste(frame, (i * width, 0))
    data = io.BytesIO()
    strip.save(data, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode(), (width, height)


def _small(frame: Frame) -> Image.Image:
    height, width = frame.shape[:2]
    scale = min(1, FRAME_BOX[0] / width, FRAME_BOX[1] / height)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
