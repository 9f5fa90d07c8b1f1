"""Every choice of an extraction, written once: the command line comes from here."""

from dataclasses import dataclass
from typing import Annotated

from attnact.vocabulary import (
    BackboneName,
    Compression,
    Decoder,
    FeatureType,
    Precision,
    Resize,
    Runtime,
)


@dataclass(frozen=True)
class ExtractConfig:
    """How features are made.

    The words beside each type are the help of the command line's option of that name.
    """

    backbone: Annotated[BackboneName, "torchvision's GoogLeNet, or Caffe's as in the paper."] = (
        "googlenet"
    )
    weights: Annotated[
        str | None, "A file, or `random` to try things out.  [default: those published]"
    ] = None
    resize: Annotated[Resize, "To 224×224, or to 256×256 and its centre 224×224."] = "squash"
    decoder: Annotated[Decoder, "decord is used only for files that it reads right."] = "pyav"
    compression: Annotated[Compression, "Of the cache; `none` and `gzip` need no plugin."] = "zstd"
    dtype: Annotated[
        FeatureType, "Of the cache; `uint8`, rounded by 0.4 %, takes half the memory."
    ] = "float16"
    runtime: Annotated[Runtime, "What runs the network; `auto` is the fastest installed."] = "auto"
    precision: Annotated[Precision, "`auto` is the fastest that keeps the features right."] = "auto"
    device: Annotated[str | None, "As torch names it.  [default: the GPU if there is one]"] = None
    decoders: Annotated[
        int | None, "Processes.  [default: for a CPU a core in four, for a GPU all but one]"
    ] = None
    time_limit: Annotated[float, "Seconds without a frame until a file is given up."] = 60.0

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        if self.decoders is not None and self.decoders < 1:
            raise ValueError("decoders must be at least 1")
        if not self.time_limit > 0:
            raise ValueError("time_limit must be above 0")
