"""A control: features whose class only attention can tell, and whether it looks where it is told.

    python -m tests.bench.control make features/control.h5
    attnact table1 features/control.h5 --attention context ...
    python -m tests.bench.control found runs/control/table1

In every frame each of the seven classes is shown at one of the 49 locations, drawn anew for each
frame; the one that shows the class of the video is marked. The mean and the maximum over the
locations are therefore the same for every class but for noise, and no location tells anything by
itself: only who finds the mark can do better than one in seven.
"""

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

from attnact.checkpoint import load_checkpoint
from attnact.feature_writer import Listing, ShardWriter, write_index
from attnact.features import CUBE, LOCATIONS, Cubes, VideoRow, shard_path
from attnact.train.clips import scored_clips
from attnact.train.evaluate import read_predictions
from attnact.train.looks import frame_maps
from attnact.train.runs import open_run
from attnact.train.store import open_store
from attnact.vocabulary import Split

CLASSES, VIDEOS, TESTED, FRAMES = 7, 18, 6, 30  # videos of each class, and how many of them test
WIDTH = 32  # channels of the mark, and of each class
LIGHT = 1.0  # what the mark and the class add to their channels; the noise has a mean of 0.1
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
    listing = Listing("control", path.parent, classes, names, labels, names, {"1": sides})
    write_index(path, 1, listing, PROVENANCE)
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
        on, hits = [], []
        for video, (frames, maps) in zip(np.unique(videos).tolist(), looks, strict=True):
            mark = places(video)[frames, cache.labels[video]]
            on.append(maps[np.arange(len(frames)), mark].mean())
            hits.append((maps.argmax(1) == mark).mean())
        click.echo(
            f"{run.folder.name}: {100 * np.mean(on):.1f} % of the attention on the mark, where it "
            f"is largest in {100 * np.mean(hits):.1f} % of the frames (chance 2.0)"
        )


def places(video: int) -> npt.NDArray[np.int64]:
    """The location that shows each class in each frame, (T, classes)."""
    random = np.random.default_rng([video, 0])
    return np.stack([random.permutation(LOCATIONS)[:CLASSES] for _ in range(FRAMES)])


def cubes(video: int, label: int) -> Cubes:
    """The feature cubes of a video, (T, 7, 7, 1024): noise, the classes, and the mark."""
    random = np.random.default_rng([video, 1])
    X = random.exponential(0.1, (FRAMES, LOCATIONS, CUBE[2])).astype(np.float16)
    frames = np.arange(FRAMES)
    for k, location in enumerate(places(video).T):
        X[frames, location, WIDTH * (1 + k) : WIDTH * (2 + k)] += LIGHT
    X[frames, places(video)[:, label], :WIDTH] += LIGHT
    return X.reshape(FRAMES, *CUBE)


if __name__ == "__main__":
    main()
