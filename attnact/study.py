"""The study: the five questions answered on a page, from the runs of a Table 1.

It needs the videos for where they move and the runs for where the models look, so it stands above
both stages.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from attnact.cache.features import FeatureCache
from attnact.cache.provenance import resize_of
from attnact.errors import RunError, VideoError
from attnact.extract.frames.motion import motion_maps
from attnact.machine.files import write_text
from attnact.machine.progress import progress
from attnact.model.checkpoint import load_checkpoint
from attnact.train.config import TrainConfig
from attnact.train.experiments.answers import (
    RATES,
    Answer,
    Seen,
    does_attention_help,
    does_the_frame_rate_matter,
    how_stable_is_it,
    what_does_lambda_do,
    where_does_it_look,
)
from attnact.train.experiments.by_video import row_videos
from attnact.train.experiments.grid import Grid
from attnact.train.experiments.rows import Row
from attnact.train.experiments.table1 import ATTENTION, context, how_sure
from attnact.train.experiments.tables import markdown
from attnact.train.feed.clips import Ints, scored_clips
from attnact.train.feed.places import FeatureStore
from attnact.train.scoring.looks import Maps, VideoMaps, frame_maps
from attnact.train.scoring.predictions import write_csv
from attnact.vocabulary import Split


def write_study(
    open_store: Callable[[], FeatureStore],
    folder: Path,
    cache: FeatureCache,
    found: Grid,
    config: TrainConfig,
    folds: Sequence[str],
) -> str:
    """Writes `study/study.md` with a CSV and a picture for each question; gives the page.

    Raises:
        RunError: a row of attention is not there, or a video is not as it was.
    """
    rows = [row for row in found.rows if row.name in ATTENTION]
    if len(found.rows) < 6:
        raise RunError(f"{folder}: the study needs all six rows of the Table 1; see the failures")
    out = folder / "study"
    out.mkdir(exist_ok=True)
    motion = read_motion(cache, row_videos(rows[0], cache))
    store = open_store()
    seen = [look(row, cache, store) for row in rows]
    answers = [
        does_attention_help(out, found, cache),
        what_does_lambda_do(out, rows, cache),
        where_does_it_look(out, seen, motion, cache),
        does_the_frame_rate_matter(out, seen, cache),
        how_stable_is_it(out, seen, motion, cache),
    ]
    for answer in answers:
        write_csv(out / f"{answer.file}.csv", answer.table, cache.random_weights)
    sure = how_sure(found, cache, folds)
    page = _page(answers, f"{context(cache, config, folds)} {sure}")
    write_text(out / "study.md", page)
    return f"{page}\n{out / 'study.md'}"


def read_motion(cache: FeatureCache, videos: Ints) -> list[Maps]:
    """The motion maps of each video, (T, L) each, read from the files.

    Raises:
        RunError: a file is missing or broken, or has other frames than when it was extracted.
    """
    found: list[Maps] = []
    with progress("motion", len(videos), "videos") as advance:
        for video in videos.tolist():
            path = cache.root / cache.paths[video]
            try:
                maps = motion_maps(path, how=resize_of(cache.provenance))
            except VideoError as error:
                raise RunError(f"{error}; the study reads the videos again") from error
            if len(maps) != cache.rows[video].frames:
                raise RunError(f"{path}: changed since its features were made")
            found.append(maps)
            advance(1, "")
    return found


def look(row: Row, cache: FeatureCache, store: FeatureStore) -> Seen:
    """Where the models of a row look, at each frame rate."""
    own = {seed: _looks(row, seed, cache, store, None) for seed in row.runs}
    rate = row.config.test_fps or row.config.fps
    at = {
        fps: own if fps == rate else {s: _looks(row, s, cache, store, fps) for s in row.runs}
        for fps in RATES
    }
    return Seen(row, at, own)


def _looks(
    row: Row, seed: int, cache: FeatureCache, store: FeatureStore, fps: float | None
) -> list[VideoMaps]:
    """Of one seed, into each video of `row_videos`; by the first fold that tests a video."""
    every = row_videos(row, cache)
    found: dict[int, VideoMaps] = {}
    for run in row.runs[seed]:
        new = (cache.folds[run.config.fold][every] == Split.TEST) & ~np.isin(every, list(found))
        model = load_checkpoint(run.model, store.device).model
        clips = scored_clips(cache, every[new], run.config, fps)
        looks = frame_maps(cache, model, store, clips, run.config.batch_size)
        found |= dict(zip(every[new].tolist(), looks, strict=True))
    return [found[video] for video in every.tolist()]


def _page(answers: Sequence[Answer], opening: str) -> str:
    parts = ["# Five questions\n", f"{opening}\n"]
    for number, answer in enumerate(answers, 1):
        parts += [
            f"## {number}. {answer.question}\n",
            f"{answer.finding}\n",
            markdown(answer.table),
            f"![{answer.question}]({answer.file}.png)\n",
        ]
    return "\n".join(parts)
