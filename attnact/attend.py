"""Where a run looks in a video, drawn over its frames; it needs both stages, so stands above."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from attnact.checkpoint import Checkpoint, load_checkpoint
from attnact.errors import RunError
from attnact.extract.video import read_frames, seen_part
from attnact.features import CHANNELS, LOCATIONS, FeatureCache
from attnact.motion import resize_of
from attnact.train import plots, runs
from attnact.train.clips import Ints, scored_clips
from attnact.train.config import CLIP_FRAMES
from attnact.train.evaluate import last_steps, masked_steps
from attnact.train.loop import fold_videos
from attnact.vocabulary import Split

SHOWN = 8  # frames of a strip, spread over the clip


def attention_strips(run_folder: Path, paths: Sequence[str], out: Path) -> list[Path]:
    """Draws a strip for each video, `<video>.png` in `out`, from the middle clip of the video.

    Args:
        run_folder: of a finished run.
        paths: of videos as the cache has them; none for one test video of each class.
        out: folder for the pictures.

    Raises:
        RunError: the cache has no such video, the model no attention, or a video fewer frames
            than it had.
        VideoError: the video file is missing or broken.
    """
    run = runs.open_run(run_folder)
    cache = run.open_cache()
    checkpoint = load_checkpoint(run.model)
    if checkpoint.model.config.kind != "attention":
        raise RunError(f"{run_folder}: its model has no attention to draw")
    out.mkdir(parents=True, exist_ok=True)
    if paths:
        unknown = [path for path in paths if path not in cache.paths]
        if unknown:
            raise RunError(f"{cache.path}: holds no video {unknown[0]}; say it as the cache does")
        videos = [cache.paths.index(path) for path in paths]
    else:
        videos = _one_a_class(cache, fold_videos(cache, run.config.fold, Split.TEST))
    return [_strip(run, cache, checkpoint, video, out) for video in videos]


def _strip(
    run: runs.Run, cache: FeatureCache, checkpoint: Checkpoint, video: int, out: Path
) -> Path:
    clips = scored_clips(cache, np.array([video]), replace(run.config, test_stride=1))
    clip = clips[np.array([len(clips) // 2])]
    positions = clip.positions()[0]
    cubes = cache.read(int(positions[0]), int(positions[-1] - positions[0]) + 1)
    X = torch.from_numpy(cubes[positions - positions[0]]).float()
    with torch.inference_mode():
        scores, maps = checkpoint.model(
            X.view(1, CLIP_FRAMES, LOCATIONS, CHANNELS), torch.from_numpy(clip.mask())
        )
    frames_there = int(clip.frames[0])
    steps = np.linspace(0, frames_there - 1, min(SHOWN, frames_there)).round().astype(int)
    wanted = positions[steps] - cache.first_frames[video]
    source, how = cache.root / cache.paths[video], resize_of(cache)
    read = islice(read_frames(source), int(wanted[-1]) + 1)
    frames = [seen_part(frame, how) for i, frame in enumerate(read) if i in set(wanted.tolist())]
    if len(frames) < len(wanted):
        raise RunError(f"{source}: changed since its features were made")
    scored = last_steps(torch.from_numpy(clip.mask()), run.config.scored_steps)
    mean = masked_steps(_probabilities(scores, checkpoint), scored)
    guess = checkpoint.classes[int(mean.argmax())]
    title = f"{cache.paths[video]}: {_label(cache, video)}, taken for {guess}"
    if cache.provenance["weights_are_random"] == "true":
        title += " (features of random weights)"
    picture = out / (cache.paths[video].replace("/", "_") + ".png")
    names = [f"frame {i}" for i in wanted]
    plots.plot_attention(picture, np.stack(frames), maps[0, steps].numpy(), names, title)
    return picture


def _probabilities(scores: torch.Tensor, checkpoint: Checkpoint) -> torch.Tensor:
    return scores.sigmoid() if checkpoint.multi_label else scores.softmax(-1)


def _label(cache: FeatureCache, video: int) -> str:
    label = cache.labels[video]
    true = np.flatnonzero(label) if cache.multi_label else [label]
    return ", ".join(cache.classes[n] for n in true)


def _one_a_class(cache: FeatureCache, videos: Ints) -> list[int]:
    """The first video of each class; one where several classes hold stands for each of them."""
    labels = cache.labels[videos]
    holds = labels.T > 0 if cache.multi_label else np.arange(len(cache.classes))[:, None] == labels
    return list(dict.fromkeys(int(videos[row.argmax()]) for row in holds if row.any()))
