"""Features of another video, made just as those of a cache were."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from attnact.errors import UnsupportedError, WeightsError
from attnact.extract.choosing import random_weights_path
from attnact.extract.frames.decoder import Failed
from attnact.extract.frames.decoding import Event, decode, probe_all
from attnact.extract.frames.gpu import resizes_on
from attnact.extract.frames.video import VideoInfo, check_decoder
from attnact.extract.networks.backbone import BACKBONES, Backbone, load_backbone
from attnact.extract.networks.weights import PUBLISHED
from attnact.vocabulary import Decoder, Resize

WAY_OUT = "say where they are with --weights FILE"


def recorded_backbone(
    provenance: Mapping[str, str], cache: Path, weights: Path | None, device: str
) -> Backbone:
    """The backbone that made the features with this provenance.

    Args:
        provenance: of the cache.
        cache: where the cache is or was; random weights lie beside it.
        weights: the file with the weights; None for where they were.
        device: as torch names it.

    Raises:
        WeightsError: the weights are not there or are others, or nothing is recorded.
        UnsupportedError: this machine cannot run the backbone as it was run.
    """
    name = provenance["backbone"]
    if name not in BACKBONES:
        raise WeightsError(
            f"{cache}: its features were made elsewhere (backbone {name}), so none can be made of "
            "another video"
        )
    # Caches from before there was a choice do not record one.
    runtime: Any = provenance.get("runtime", "torch")
    precision: Any = provenance.get("precision", "float32")
    device = "cpu" if runtime == "openvino" else device
    if precision == "float16" and runtime == "torch" and torch.device(device).type == "cpu":
        precision = "float32"  # made on a GPU; a CPU is several times as fast in it, and as right
    file = weights or _recorded_file(provenance, cache)
    try:
        backbone = load_backbone(name, file, device, runtime, precision)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{cache}: its features were made by {runtime} in {precision}: {error}"
        ) from error
    if backbone.digest != provenance["weights_digest"]:
        raise WeightsError(
            f"{weights or backbone.weights}: not the weights that made the run's features "
            f"({provenance['weights']}, digest {provenance['weights_digest'][:12]}, here "
            f"{backbone.digest[:12]}); {WAY_OUT}"
        )
    return backbone


def read_videos(
    paths: Sequence[Path], decoder: Decoder, how: Resize, time_limit: float, device: torch.device
) -> Generator[tuple[VideoInfo | Failed, Iterator[Event]], None, None]:
    """The header of each file and what `decode` gives of it, one file after the other.

    The events of a file are to be read before the next file is asked for; the last of them is
    `Ended` or `Failed`. The frames are for a network on the device.

    Raises:
        UnsupportedError: the decoder is not installed.
    """
    check_decoder(decoder)
    decoded = decode(paths, decoder, how, time_limit, resizes_on(device))
    events = groupby(decoded, key=lambda event: event[0])
    for header, (_, own) in zip(probe_all(paths, time_limit), events, strict=True):
        yield header, (event for _, event in own)


def _recorded_file(provenance: Mapping[str, str], cache: Path) -> Path | None:
    """Where the weights were; None for published ones, which can be fetched again."""
    label, recorded = provenance["weights"], provenance.get("weights_file", "")
    if recorded:
        file = Path(recorded)
    elif provenance["weights_are_random"] == "true":
        file = random_weights_path(cache)
    elif "weights_file" in provenance or label == PUBLISHED[provenance["backbone"]].label:
        return None  # older caches do not record where they were
    else:
        raise WeightsError(f"{cache}: does not record where its weights ({label}) lay; {WAY_OUT}")
    if not file.is_file():
        raise WeightsError(f"{file}: the weights of the run's features are gone; {WAY_OUT}")
    return file
