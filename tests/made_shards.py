"""Shards of features that a test can tell."""

from pathlib import Path

import h5py
import numpy as np

from attnact.cache.compact import Cubes
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import CUBE
from attnact.cache.tables import VideoRow
from attnact.vocabulary import Compression


def cubes_of(video: int, frames: int) -> Cubes:
    """Mostly zeros, as real features are; no two videos or frames alike."""
    rng = np.random.default_rng(video)
    return (rng.random((frames, *CUBE)) * (rng.random((frames, *CUBE)) > 0.9)).astype(np.float16)


def claim(path: Path, compression: Compression = "zstd") -> ShardWriter:
    writer = ShardWriter.claim(path, compression)
    assert writer is not None
    return writer


def add(writer: ShardWriter, video: int, frames: int, block: int = 3) -> None:
    cubes = cubes_of(video, frames)
    for start in range(0, frames, block):
        writer.append(cubes[start : start + block])
    writer.end_video(VideoRow(video, 0, 29.97, 320, 240, frames + 1, "pyav"))


def write(path: Path, videos: dict[int, int], compression: Compression = "zstd") -> None:
    """A shard of videos, each with so many frames."""
    writer = claim(path, compression)
    for video, frames in videos.items():
        add(writer, video, frames)
    writer.close()


def features_in(file: h5py.File) -> Cubes:
    """Channels last, as everywhere but in the file."""
    return np.ascontiguousarray(np.moveaxis(file["features"][()], 1, -1))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
