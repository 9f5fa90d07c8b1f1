"""The paper's training on HMDB-51, whole: on features of that size that were made up."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from attnact.cache.features import CHANNELS, LOCATIONS
from attnact.machine import ranks
from attnact.model.models import ModelConfig, build_model
from attnact.train.config import TrainConfig
from attnact.train.epoch import train_epoch
from attnact.train.feed.clips import Clips, Ints
from attnact.train.feed.widen import Stored
from attnact.train.lanes import Pass
from attnact.train.optimizer import new_optimizer
from attnact.train.selection import FINAL
from tests.bench.measuring import DEVICE, Row, figure, in_turn

NAME = "HMDB-51's training part, location, 3×1024, B 128, stride 1, 15 epochs"
# Of a fold's 3,570 training videos, about 340,000 frames.
VIDEOS, FRAMES, CLASSES, EPOCHS = 3_570, 95, 51, 15
CONFIG = TrainConfig(fold="1", hidden_size=1024, epochs=EPOCHS, precision="bfloat16")


class MadeStore:
    """Random features as uint8 on the device; see `FeatureStore`."""

    device, place, frame_bytes = DEVICE, "the device", LOCATIONS * CHANNELS

    def __init__(self, frames: int) -> None:
        cubes = torch.empty(frames, LOCATIONS, CHANNELS, dtype=torch.uint8, device=DEVICE)
        self._cubes, self._scales = cubes.random_(), torch.rand(frames, LOCATIONS, device=DEVICE)

    def gather(self, positions: Ints, room: Tensor | None = None) -> Stored:
        """See `FeatureStore`."""
        index = torch.from_numpy(positions).to(DEVICE)
        return Stored(self._cubes[index], self._scales[index])


def hmdb51(config: TrainConfig = CONFIG, videos: int = VIDEOS, part: int = 12) -> Row:
    """So many parts of an epoch are taken for one, and one epoch for all."""
    every = len(clips(videos, FRAMES))
    some = len(range(0, every, part))
    (taken,) = in_turn([made_epoch([config], videos, FRAMES, part)], 3)
    minutes = figure([seconds * every / some * EPOCHS / 60 for seconds in taken])
    size = f"{every:,} clips an epoch; {videos * FRAMES:,} frames as uint8 on the device"
    return Row(NAME, minutes.text("minutes", digits=1), "", "", f"{size}; from {some:,} clips")


def made_epoch(
    configs: Sequence[TrainConfig], videos: int, frames: int, part: int = 1
) -> Callable[[], object]:
    """A part of an epoch at stride 1 on videos of so many frames each, of runs of one shape."""
    store, config = MadeStore(videos * frames), configs[0]
    shape = ModelConfig(
        CLASSES,
        attention=config.attention,
        hidden_size=config.hidden_size,
        lstm_layers=config.lstm_layers,
    )
    labels = torch.arange(videos, device=DEVICE) % CLASSES
    every = clips(videos, frames)
    some = every[np.arange(0, len(every), part)]

    def whole(config: TrainConfig) -> Pass:
        model = build_model(shape).to(DEVICE)
        module, optimizer = ranks.parallel(model), new_optimizer(model, config)
        return Pass(config, store, labels, model, module, optimizer, some, FINAL, 1)

    passes = [whole(config) for config in configs]
    return lambda: train_epoch(passes, lambda more, note: None)


def clips(videos: int, frames: int) -> Clips:
    """All clips of made videos, at each frame's."""
    starts = np.arange(frames - 29)
    video = np.repeat(np.arange(videos), len(starts))
    first = video * frames + np.tile(starts, videos)
    step, there = np.ones_like(first), np.full_like(first, 30)
    return Clips(video, first, step, there, there)
