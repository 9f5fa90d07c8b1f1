"""The backbone of an extraction: which weights, what runs it, and in which precision."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from attnact.errors import DatasetError
from attnact.extract.config import ExtractConfig
from attnact.extract.datasets.base import Dataset
from attnact.extract.frames.decoding import decode
from attnact.extract.frames.resize import FRAME_SIDE
from attnact.extract.networks.backbone import RANDOM, Backbone, likeness, load_backbone
from attnact.extract.plan import Plan, plan_path
from attnact.machine.devices import best_device
from attnact.vocabulary import Precision, Runtime

CALIBRATED_ON = 32  # videos that random weights are calibrated on
APART = 8  # frames, of the two that are taken of a video
LOOKED_AT = 8  # videos on which a precision shows that it keeps the features right, ...
ALIKE = 0.9995  # ... which is when they are so like those in float32


def choose_backbone(
    dataset: Dataset, cache: Path, config: ExtractConfig, plan: Plan | None
) -> Backbone:
    """The backbone; a cache that was begun goes on with what `auto` stood for then.

    Raises:
        WeightsError: the weights are missing or broken.
    """
    runtime, precision, check = config.runtime, config.precision, False
    if plan is not None:
        runtime = plan.settings.runtime if runtime == "auto" else runtime
        precision = plan.settings.precision if precision == "auto" else precision
    elif precision == "auto" and config.weights == RANDOM:
        precision = "float32"  # an untrained network makes much of every rounding
    else:
        check = precision == "auto"
    load = partial(_load, dataset, cache, config, runtime)
    backbone = load(precision)
    if check and backbone.precision != "float32":
        frames = _some_frames(dataset, config, LOOKED_AT)
        exact = _load(dataset, cache, config, "torch", "float32")  # the soonest ready
        if not len(frames) or not likeness(backbone(frames), exact(frames)) >= ALIKE:  # or NaN
            return load("float32")
    return backbone


def _load(
    dataset: Dataset, cache: Path, config: ExtractConfig, runtime: Runtime, precision: Precision
) -> Backbone:
    weights: str | Path | None = config.weights
    frames = None
    if weights == RANDOM and random_weights_path(cache).exists():
        weights = random_weights_path(cache)
    elif weights == RANDOM:
        frames = _some_frames(dataset, config, CALIBRATED_ON)
        if not len(frames):
            raise DatasetError(f"{dataset.root}: none of the first videos decodes")
    device = _device(config, runtime)
    return load_backbone(config.backbone, weights, device, runtime, precision, frames)


def recall_backbone(cache: Path, config: ExtractConfig, plan: Plan) -> Backbone:
    """The backbone of a cache that was begun, its random weights included, without the videos.

    Raises:
        WeightsError: the weights are missing or broken.
    """
    weights = random_weights_path(cache) if config.weights == RANDOM else config.weights
    runtime, precision = plan.settings.runtime, plan.settings.precision
    device = _device(config, runtime)
    return load_backbone(config.backbone, weights, device, runtime, precision)


def _device(config: ExtractConfig, runtime: Runtime) -> torch.device:
    return best_device(config.device or ("cpu" if runtime == "openvino" else None))


def random_weights_path(cache: Path) -> Path:
    """Where a cache keeps the random weights that made it: they exist nowhere else."""
    return plan_path(cache).with_name("weights.safetensors")


def _some_frames(dataset: Dataset, config: ExtractConfig, most: int) -> torch.Tensor:
    """Two frames of each of up to `most` videos, spread over the data set, (n, 224, 224, 3)."""
    videos = dataset.videos
    if len(videos) > most:
        videos = tuple(videos[i * len(videos) // most] for i in range(most))
    paths = [dataset.root / video.path for video in videos]
    frames = [torch.empty((0, FRAME_SIDE, FRAME_SIDE, 3), dtype=torch.uint8)]
    counts = [0] * len(paths)
    decoded = decode(paths, "pyav", config.resize, config.time_limit, most=APART + 1)
    for position, event in decoded:
        if isinstance(event, Tensor):  # extraction itself will report a file that fails
            frames.append(event[-counts[position] % APART :: APART])
            counts[position] += len(event)
    return torch.cat(frames)
