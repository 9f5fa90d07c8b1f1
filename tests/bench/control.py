"""A control: features whose class only attention can tell, and whether it looks where it is told.

    python -m tests.bench.control make features/control.h5
    attnact table1 features/control.h5 ...  # all of it in docs/control.md
    python -m tests.bench.control found runs/control/table1

In every frame each of the seven classes is shown at seven of the 49 locations, drawn anew for each
frame. Two of the seven that show the class of the video are marked: some channels that are lit
alike everywhere else are brighter in the one and dark in the other. There is no noise.

So the mean and the maximum over the locations are the same in every frame of every video, to the
last bit. What a location shows is on average the same for every class, so that softmax regression,
whose loss is convex, can do no better than to give all classes the same score. Who looks at all
locations of a class alike sees the same too, because the bright mark makes up for the dark one.
Only who looks at a mark more, or less, than at the locations that look like it can tell the class.

The two marks also make it easy: with one, a model that begins by looking away can stay that way.
"""

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

from attnact.cache.compact import Cubes
from attnact.cache.feature_index import Listing, write_index
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import CUBE, LOCATIONS
from attnact.cache.shards import shard_path
from attnact.cache.tables import VideoRow
from attnact.model.checkpoint import load_checkpoint
from attnact.train.feed.clips import scored_clips
from attnact.train.feed.store import open_store
from attnact.train.runs import open_run
from attnact.train.scoring.looks import frame_maps
from attnact.train.scoring.predictions import read_predictions
from attnact.vocabulary import Split

CLASSES, VIDEOS, TESTED, FRAMES = 7, 18, 6, 30  # videos of each class, and how many of them test
WIDTH = 32  # channels of the marks, and of each class; those in use hold 1, or 2 at the bright mark
PROVENANCE = {"backbone": "none", "weights": "none: made features", "weights_are_random": "false"}


@click.group()
def main() -> None:
    """Features whose class only attention can tell."""


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
def make(path: Path) -> None:
    """Write the cache."""
    n = CLASSES * VIDEOS
    labels = np.arange(n) % CLASSES
    sides = np.where(np.arange(n) < CLASSES * TESTED, Split.TEST, Split.TRAIN).astype(np.int8)
    names = [f"video {i}" for i in range(n)]
    classes = [f"class {k}" for k in range(CLASSES)]
    shard_path(path, 0).parent.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter.claim(shard_path(path, 0), "lz4")
    assert writer is not None, "it is there already"
    for video, label in enumerate(labels.tolist()):
        writer.append(cubes(video, label))
        writer.end_video(VideoRow(video, frame_rate=30.0))
    writer.close()
    places = range(len(names))
    listing = Listing("control", path.parent, classes, names, labels, names, {"1": sides}, places)
    write_index(path, range(1), listing, PROVENANCE)
    click.echo(f"{path}: {n} videos, {CLASSES} classes")


@main.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def found(folder: Path) -> None:
    """Print how much of the attention of each run lies on the mark, in the test videos."""
    for config in sorted(folder.glob("lambda*/config.json")):
        run = open_run(config.parent)
        cache = run.open_cache()
        videos, _ = read_predictions(run.predictions, cache)
        store = open_store(cache, videos, "host", torch.device("cpu"))
        clips = scored_clips(cache, videos, run.config)
        looks = frame_maps(cache, load_checkpoint(run.model).model, store, clips, 16)
        shares = []  # of the attention that lies on each mark, (frames, 2)
        for video, (frames, maps) in zip(np.unique(videos).tolist(), looks, strict=True):
            marks = places(video)[frames, cache.labels[video], :2]
            shares.append(np.take_along_axis(maps, marks, axis=1))
        bright, dark = 100 * np.concatenate(shares).mean(0)
        click.echo(
            f"{run.folder.name}: {bright + dark:.1f} % of the attention on the marks (chance 4.1), "
            f"{bright:.1f} on the bright one and {dark:.1f} on the dark one"
        )


def places(video: int) -> npt.NDArray[np.int64]:
    """The locations that show each class in each frame, (T, 7, 7).

    Of those of the video's own class the first is the bright mark, the second the dark one.
    """
    random = np.random.default_rng(video)
    frames = [random.permutation(LOCATIONS).reshape(CLASSES, -1) for _ in range(FRAMES)]
    return np.stack(frames)


def cubes(video: int, label: int) -> Cubes:
    """The feature cubes of a video, (T, 7, 7, 1024)."""
    X = np.zeros((FRAMES, LOCATIONS, CUBE[2]), np.float16)
    X[:, :, :WIDTH] = 1
    shown, frames = places(video), np.arange(FRAMES)
    X[frames, shown[:, label, 0], :WIDTH] = 2
    X[frames, shown[:, label, 1], :WIDTH] = 0
    for k in range(CLASSES):
        X[frames[:, None], shown[:, k], WIDTH * (1 + k) : WIDTH * (2 + k)] = 1
    return X.reshape(FRAMES, *CUBE)


if __name__ == "__main__":
    main()
