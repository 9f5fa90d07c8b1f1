"""Three λ or seeds beside one run, in turn and side by side: the time, and the memory it takes.

On a GPU, whose steps take milliseconds, of the epochs alone: on features that were made up there,
enough of them to outlast what comes before the first step. Last why the runs are no stacked model,
one whose tensors have a dimension of models: its products, beside those of runs by themselves.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attnact.cache.feature_index import Listing, write_index
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.features import CUBE, FeatureCache
from attnact.cache.shards import shard_path
from attnact.cache.tables import VideoRow
from attnact.machine.progress import be_quiet
from attnact.machine.replayed import Replayed, replays
from attnact.machine.streams import side_by_side
from attnact.model.products import Weights
from attnact.train.config import TrainConfig
from attnact.train.experiments.sweep import sweep_rows
from attnact.train.feed.places import FeatureStore
from attnact.train.feed.store import bytes_of, open_store
from attnact.train.lockstep import abreast
from attnact.train.loop import train, train_together
from attnact.train.runs import Run, create_run
from attnact.vocabulary import Split
from tests.bench.hmdb51 import made_epoch
from tests.bench.measuring import DEVICE, OPERATIONS, Row, figure, in_turn, product, ratio

VIDEOS, FRAMES, PENALTIES = 16, 60, (0.0, 1.0, 10.0)
BASE = TrainConfig(fold="1", validation=0.0, epochs=1, test_stride=30)
CONFIGS = (
    replace(BASE, batch_size=128),
    replace(BASE, batch_size=128, precision="bfloat16"),
    replace(BASE, batch_size=32, train_stride=4, attention="context"),
)
ON_GPU = (*CONFIGS[:2], replace(CONFIGS[1], hidden_size=1024), CONFIGS[2])
HOW = ("one after the other", "side by side")
DTYPES, STEPS = (torch.float32, torch.bfloat16), 30


def rows(quick: bool) -> Iterator[Row]:
    """All train on the same made features, from the same store."""
    if DEVICE.type == "cuda":
        for what, config in cases(ON_GPU, quick):
            yield epochs(what, config)
        yield from map(stacked, DTYPES)
        return
    be_quiet(True)
    with tempfile.TemporaryDirectory() as folder:
        cache = make(Path(folder))
        videos = np.arange(VIDEOS)
        store = open_store(cache, videos, "auto", DEVICE)
        places = (Path(folder, f"run{i}") for i in count())
        held = f"{bytes_of(cache, videos) / 2**20:,.0f} MiB of features in memory, as for one"
        for what, config in cases(CONFIGS, quick):
            one, *others = measured(several(what, config), cache, store, places)
            for how, three in zip(HOW, others, strict=True):
                yield Row(
                    f"three {what}, {config.attention}, B {config.batch_size}, 3×512, "
                    f"{config.precision}, trained {how}",
                    figure(three).text("s", digits=1),
                    f"{figure(one).text('s', digits=1)} for one; "
                    f"{ratio(three, one).text('×', digits=2)}",
                    "3 ×, where arithmetic binds",
                    held + "; what is done here" * (how == HOW[abreast(config, DEVICE) > 1]),
                )
    yield from map(stacked, DTYPES)


def cases(configs: Sequence[TrainConfig], quick: bool) -> list[tuple[str, TrainConfig]]:
    """What is measured: what three runs differ in, and their other choices; seeds of the first."""
    every = [*(("λ", config) for config in configs), *(("seeds", it) for it in configs[:2])]
    return every[: 1 if quick else None]


def several(what: str, config: TrainConfig) -> list[TrainConfig]:
    """Three that differ in it."""
    if what == "λ":
        return list(sweep_rows(config, PENALTIES).values())
    return [replace(config, seed=seed) for seed in range(3)]


def epochs(what: str, config: TrainConfig) -> Row:
    """About a hundred steps of one run, and of three side by side."""
    part = 400 * 66 // (100 * config.batch_size)
    configs = several(what, config)
    works = [made_epoch(some, 400, 95, part) for some in (configs[:1], configs)]
    one, three = in_turn(works, 3)
    return Row(
        f"three {what}, {config.attention}, B {config.batch_size}, 3×{config.hidden_size}, "
        f"{config.precision}, trained side by side",
        figure(three).text("s", digits=2),
        f"{figure(one).text('s', digits=2)} for one; {ratio(three, one).text('×', digits=2)}",
        "3 ×, where arithmetic binds",
        "a hundred steps",
    )


def measured(
    configs: Sequence[TrainConfig],
    cache: FeatureCache,
    store: FeatureStore,
    places: Iterator[Path],
) -> list[list[float]]:
    """Seconds of one run, before and after the others, of all in a row, and side by side."""

    def begin(some: Sequence[TrainConfig]) -> list[Run]:
        return [create_run(next(places), config, cache) for config in some]

    def alone() -> None:
        train(*begin(configs[:1]), cache, store)

    def in_a_row() -> None:
        for run in begin(configs):
            train(run, cache, store)

    def together() -> None:
        for _, outcome in train_together(begin(configs), cache, store):
            assert not isinstance(outcome, Exception), outcome

    before, row, after, beside = in_turn([alone, in_a_row, alone, together], 3)
    return [[(a + b) / 2 for a, b in zip(before, after, strict=True)], row, beside]


def stacked(dtype: torch.dtype) -> Row:
    """A layer's products in thirty steps of three runs, forward and back, a run by itself or all
    in one: what of a step a stack could make faster."""
    B, inputs, outputs, runs = 128, 1024, 2048, len(PENALTIES)
    taken = torch.rand(runs, B, inputs, device=DEVICE).to(dtype)
    slopes = torch.rand(runs, B, outputs, device=DEVICE).to(dtype)
    weights = torch.rand(runs, outputs, inputs, device=DEVICE).to(dtype)
    turned = weights.mT if DEVICE.type == "cuda" else weights.mT.contiguous()  # which is faster

    def of_one(run: int) -> Tensor:
        ahead, back = Weights(weights[run]), Weights(weights[run].t())
        return _last(lambda: (ahead.times(taken[run]), back.times(slopes[run])))

    def alone(taken: Tensor) -> Tensor:
        return torch.stack(side_by_side(DEVICE, [partial(of_one, run) for run in range(runs)]))

    def as_a_stack(taken: Tensor) -> Tensor:
        return _last(lambda: (torch.bmm(taken, turned), torch.bmm(slopes, weights)))

    ways = [Replayed(it, DEVICE, still=1) if replays(DEVICE) else it for it in (alone, as_a_stack)]
    works = [partial(way, taken) for way in ways]
    mine, stack, large = in_turn([*works, product(dtype)], 5, repeat=3)
    operations = runs * STEPS * 2 * 2.0 * B * inputs * outputs
    bound = operations / (OPERATIONS / min(large))
    unit = ("ms", 1e-3, 2 if DEVICE.type == "cuda" else 0)
    return Row(
        f"products of three runs, {B}×{inputs}×{outputs} and back, {STEPS} steps, "
        f"{str(dtype).removeprefix('torch.')}, {HOW[abreast(BASE, DEVICE) > 1]}",
        figure(mine).text(*unit),
        f"{figure(stack).text(*unit)} as a stack, by `bmm`, "
        f"{ratio(stack, mine).text('×', digits=2)}",
        f"{bound * 1e3:.{unit[2]}f} ms as one large product",
    )


def _last(step: Callable[[], tuple[Tensor, Tensor]]) -> Tensor:
    """Of so many steps, a number of each product."""
    for _ in range(STEPS):
        ahead, back = step()
    return ahead.flatten()[-1] + back.flatten()[-1]


def make(folder: Path) -> FeatureCache:
    """A cache of made features."""
    path, random = folder / "made.h5", np.random.default_rng(0)
    shard_path(path, 0).parent.mkdir()
    writer = ShardWriter.claim(shard_path(path, 0), "lz4")
    assert writer is not None
    for video in range(VIDEOS):
        cubes = random.exponential(size=(FRAMES, *CUBE)).astype(np.float16)
        cubes[random.random(cubes.shape) < 0.84] = 0
        writer.append(cubes)
        writer.end_video(VideoRow(video, frame_rate=30.0))
    writer.close()
    names = [f"{i}.avi" for i in range(VIDEOS)]
    sides = np.where(np.arange(VIDEOS) < 4, Split.TEST, Split.TRAIN).astype(np.int8)
    labels = np.arange(VIDEOS) % 2
    places = range(len(names))
    listing = Listing("made", folder, ["a", "b"], names, labels, names, {"1": sides}, places)
    return write_index(path, range(1), listing, {"weights_are_random": "false"})
