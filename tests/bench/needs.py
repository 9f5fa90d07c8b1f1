"""What large data sets take at the rates of this machine, measured here and nowhere else."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from attnact.extract.plan import KIB_PER_FRAME
from tests.bench.extraction import Material, extracted, material_of
from tests.bench.measuring import DEVICE, Figure, figure, in_turn
from tests.bench.training import step

GPUS = 8  # which share an extraction by shards; what each takes is measured on one
ON_GPU = DEVICE.type == "cuda"
SEVERAL = [f"by {GPUS} such GPUs"] if ON_GPU else []
HEADER = (
    *("data set", "frames", "cache"),
    *(f"extraction by the {'GPU' if ON_GPU else 'CPU'}", *SEVERAL),
    "one clip of each video trained here",
)
B = 128


class Size(NamedTuple):
    """A data set: how many videos, and how many frames they have together."""

    name: str
    videos: float
    frames: float


# As their authors tell: 13,320 clips of 7.21 s at 25 frames/s; about 306,000 clips of 10 s, here
# at 25 frames/s; and a thousand hours at 30 frames/s, cut into clips of ten seconds.
SIZES = [
    Size("HMDB-51", 6_766, 640_000),
    Size("UCF-101", 13_320, 13_320 * 7.21 * 25),
    Size("Kinetics-400", 306_000, 306_000 * 10 * 25),
    Size("1,000 hours of one's own", 360_000, 1000 * 3600 * 30),
]


def rows(quick: bool) -> Iterator[tuple[str, ...]]:
    """The rates first, then what follows from them."""
    with tempfile.TemporaryDirectory() as folder:
        made = extraction_rate(material_of(Path(folder), quick))
    kib = KIB_PER_FRAME["float16"]["zstd"]  # measured too, on clips of more than two scenes
    X = torch.rand(32 if quick else B, 30, 49, 1024, device=DEVICE)
    (taken,) = in_turn([step("location", X, torch.bfloat16)], 3)
    clips = figure([len(X) / seconds for seconds in taken])
    yield (
        "measured",
        "",
        f"{kib:.0f} KiB a frame",
        made.text("frames/s"),
        *["" for _ in SEVERAL],
        clips.text("clips/s, 3×512, bfloat16"),
    )
    for size in SIZES:
        yield (
            size.name,
            f"{size.frames / 1e6:,.1f} million",
            f"{size.frames * kib / 2**20:,.0f} GiB",
            duration(size.frames / made.median),
            *[duration(size.frames / made.median / GPUS) for _ in SEVERAL],
            duration(size.videos / clips.median),
        )


def extraction_rate(material: Material) -> Figure:
    """Frames a second after the start."""
    found = [extracted("bvlc_googlenet", material) for _ in range(3)]
    return figure([it.frames / (it.seconds - it.start) for it in found])


def duration(seconds: float) -> str:
    """In the unit that fits."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.{seconds < 10:d}f} seconds"
