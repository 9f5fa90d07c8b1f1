"""Extractions of made clips by a backbone that stands in for the network; what is due of them."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from attnact.cache.compact import to_float, to_uint8
from attnact.cache.features import FeatureCache
from attnact.extract import choosing
from attnact.extract import plan as plan_module
from attnact.extract.config import ExtractConfig
from attnact.extract.datasets.base import Dataset, Video
from attnact.extract.frames.resize import resize
from attnact.extract.frames.video import read_frames
from attnact.extract.pipeline import Extraction, extract, make_here, prepare
from attnact.vocabulary import Resize, Split

CLIPS = {"dive/a.avi": 5, "dive/b.avi": 40, "run/c.mp4": 1, "run/d.avi": 33, "run/e.mpg": 20}
SHARDS = 3  # of clips a, b and c; of d; and of e, in shards of 50 frames


class StandIn:
    """A backbone that tells which frame it saw: the mean colour of each location."""

    name, weights, digest, is_random = "googlenet", "stand-in", "0123", False
    device = torch.device("cpu")
    runtime, precision = "torch", "float32"

    def start(self, frames: Tensor) -> Callable[[], Tensor]:
        return self(frames).half

    def __call__(self, frames: Tensor) -> Tensor:
        cubes = torch.zeros(len(frames), 7, 7, 1024)
        cubes[..., :3] = frames.reshape(-1, 7, 32, 7, 32, 3).sum((2, 4)) / 1024
        return cubes

    def save(self, path: Path) -> None:
        raise AssertionError("only random weights are kept")


def make_dataset(root: Path, paths: list[str], multi_label: bool = False) -> Dataset:
    videos = tuple(Video(p, (int(p.startswith("run")),), f"group {i}") for i, p in enumerate(paths))
    if multi_label:
        videos = (replace(videos[0], labels=(0, 1)), *videos[1:])
    sides = [Split.TRAIN if i % 2 else Split.TEST for i in range(len(paths))]
    return Dataset("folder", root, ("dive", "run"), multi_label, videos, {"1": sides})


def begin(dataset: Dataset, cache: Path, **config: object) -> Extraction:
    """An extraction in batches of 8 frames, on one decoder."""
    extraction = prepare(dataset, cache, ExtractConfig(**config))
    return replace(extraction, job=replace(extraction.job, size=8, decoders=1))


def ignore(frames: int, videos: int, failures: int) -> None:
    """What has been done."""


def stop_after(batches: int, how: Callable[[], None]) -> Callable[[int, int, int], None]:
    def report(frames: int, videos: int, failures: int) -> None:
        nonlocal batches
        batches -= 1
        if batches == 0:
            how()

    return report


def interrupt() -> None:
    raise KeyboardInterrupt


def remade(dataset: Dataset, cache: Path, **config: object) -> FeatureCache:
    """By a process that makes what is missing, and another that ends the cache."""
    extraction = begin(dataset, cache, **config)
    make_here(extraction, extraction.job.plan.missing(cache, dataset.paths), ignore)
    return extract(begin(dataset, cache, **config), ignore)


def surround(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the network, small shards, and nothing that differs from run to run."""
    monkeypatch.setattr(choosing, "load_backbone", lambda *arguments: StandIn())
    monkeypatch.setattr(plan_module, "SHARD_FRAMES", 50)
    monkeypatch.setattr(sys, "argv", ["attnact", "features"])
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1577836800")


def make_videos(folder: Path, make_clip: Callable[..., Path]) -> None:
    for name in ("dive", "run"):
        (folder / name).mkdir()
    for seed, (path, frames) in enumerate(CLIPS.items()):
        codec = ("-c:v", "mpeg1video") if path.endswith("mpg") else ()
        make_clip(folder / path, *codec, frames=frames, seed=seed)


def hold(cache: FeatureCache, root: Path, how: Resize = "squash") -> None:
    """Every video of the cache has the features of each of its frames, in order."""
    compact = cache.provenance["dtype"] == "uint8"
    assert cache.dtype == (np.uint8 if compact else np.float16)
    for path, first, row in zip(cache.paths, cache.first_frames, cache.rows, strict=True):
        frames = resize(np.stack(list(read_frames(root / path))), how)
        expected = StandIn()(torch.from_numpy(frames)).half().numpy()
        expected = to_float(to_uint8(expected)) if compact else expected
        np.testing.assert_array_equal(cache.read(int(first), row.frames), expected)
    assert list(cache.verify()) == [None] * len(cache.paths)
