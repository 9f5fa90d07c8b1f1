"""Test videos for the page: a few frames of each, and where each model looks in them."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from attnact.cache.features import FeatureCache
from attnact.cache.provenance import resize_of
from attnact.errors import AttnactError, RunError
from attnact.extract.frames.resize import seen_part
from attnact.extract.frames.video import Frame, read_frames
from attnact.model.checkpoint import load_checkpoint
from attnact.page.pool import Guess, PoolVideo, choose, open_caches, tested_videos
from attnact.page.read import Setting, ShownRun
from attnact.train.feed.clips import Ints, scored_clips
from attnact.train.feed.places import FeatureStore
from attnact.train.feed.store import open_store
from attnact.train.scoring.looks import VideoMaps, frame_maps

SHOWN = 8  # frames of a video
FRAME_BOX = 208, 160  # pixels, the width and the height that a frame must fit
QUALITY = 75  # of the JPEG; 24 videos of 8 frames are about 1 MB


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
    maps: dict[int, VideoMaps]


def make_gallery(
    settings: Sequence[Setting], count: int, device: torch.device
) -> tuple[list[GalleryVideo], list[str]]:
    """At most `count` test videos, and a line for each thing that is missing."""
    notes: list[str] = []
    caches = open_caches(settings, notes) if count else {}
    pool = tested_videos(settings, caches)
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


def _looks(
    settings: Sequence[Setting],
    caches: Mapping[str, FeatureCache],
    chosen: Sequence[PoolVideo],
    device: torch.device,
    notes: list[str],
) -> dict[Path, dict[int, VideoMaps]]:
    """File -> number of the setting -> where it looks there, as far as models and features are."""
    wanted = _wanted(settings, caches, chosen, notes)
    stores: dict[str, FeatureStore] = {}
    found: dict[Path, dict[int, VideoMaps]] = {}
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


def _wanted(
    settings: Sequence[Setting],
    caches: Mapping[str, FeatureCache],
    chosen: Sequence[PoolVideo],
    notes: list[str],
) -> dict[tuple[int, Path], tuple[ShownRun, list[str]]]:
    """(number of the setting, folder of the run) -> the run, and the videos that it speaks for."""
    wanted: dict[tuple[int, Path], tuple[ShownRun, list[str]]] = {}
    elsewhere: list[str] = []
    for tested in chosen:
        for number, guess in tested.guesses.items():
            if settings[number].config.model != "attention":
                continue
            # A map of the whole frame would lie wrongly over its centre, and the other way round.
            if resize_of(caches[guess.run.run.cache_digest].provenance) != resize_of(
                tested.cache.provenance
            ):
                elsewhere.append(settings[number].name)
                continue
            name = guess.predictions.videos[guess.row]
            wanted.setdefault((number, guess.run.run.folder), (guess.run, []))[1].append(name)
    names = dict.fromkeys(elsewhere)
    notes += [f"{name} has no maps here: it saw another part of the frames" for name in names]
    return wanted


def _store(
    cache: FeatureCache, wanted: Iterable[tuple[ShownRun, list[str]]], device: torch.device
) -> FeatureStore:
    names = {
        name for run, names in wanted if run.run.cache_digest == cache.digest for name in names
    }
    videos = np.sort([cache.paths.index(name) for name in names])
    return open_store(cache, videos, "auto", device)


def _maps(run: ShownRun, cache: FeatureCache, store: FeatureStore, videos: Ints) -> list[VideoMaps]:
    """Where the run's model looks in each of the videos, in their order."""
    config, model = run.run.config, load_checkpoint(run.run.model, store.device).model
    clips = scored_clips(cache, videos, config)
    return frame_maps(cache, model, store, clips, config.batch_size)


def _video(path: Path, tested: PoolVideo, looks: Mapping[int, VideoMaps]) -> GalleryVideo:
    """The frames are spread over those that the first model looked at.

    Of a model that looked at others, by another frame rate, the map nearest in time is taken.

    Raises:
        RunError: the file is another one than it was.
        VideoError: the file is broken.
    """
    if tested.cache.changed(tested.position):
        raise RunError(f"{path}: changed since its features were made")
    every = np.arange(tested.cache.rows[tested.position].frames)
    seen = next(iter(looks.values())).frames if looks else every
    steps = np.linspace(0, len(seen) - 1, min(SHOWN, len(seen))).round().astype(int)
    wanted = seen[steps]
    strip, size = _strip(path, wanted, tested.cache)
    maps = {}
    for number, (frames, of_frames) in looks.items():
        nearest = np.abs(frames - wanted[:, None]).argmin(1)
        maps[number] = VideoMaps(frames[nearest], of_frames[nearest])
    guess = next(iter(tested.guesses.values()))
    true, name = guess.predictions.true(guess.row), guess.predictions.videos[guess.row]
    return GalleryVideo(name, true, wanted.tolist(), strip, size, tested.guesses, maps)


def _strip(path: Path, wanted: Ints, cache: FeatureCache) -> tuple[str, tuple[int, int]]:
    """These frames side by side, as far as the backbone saw of them, and the size of one."""
    read = islice(read_frames(path), int(wanted[-1]) + 1)
    keep = set(wanted.tolist())
    frames = [
        _small(seen_part(it, resize_of(cache.provenance))) for i, it in enumerate(read) if i in keep
    ]
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
