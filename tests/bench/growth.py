"""How the cost of a training step, an epoch and an extraction grows, and a law for each."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls

from attnact.demo import COLOURS, draw_clip, write_video
from attnact.train.config import TrainConfig
from tests.bench import training
from tests.bench.extraction import extracted, material_of
from tests.bench.hmdb51 import made_epoch
from tests.bench.measuring import DEVICE, Figure, Row, figure, in_turn

L, C = 49, 1024


class Shape(NamedTuple):
    """One point of the grid."""

    clips: int = 32  # B
    frames: int = 30  # T
    layers: int = 1
    hidden_size: int = 512  # H
    classes: int = 51  # N

    @property
    def operations(self) -> float:
        """Of a training step's products."""
        H = self.hidden_size
        gates = (C + H + (self.layers - 1) * 2 * H) * 4 * H
        each = gates + H * H + H * self.classes + L * (H + C)
        return 6.0 * self.clips * self.frames * each

    @property
    def bytes(self) -> float:
        """Of the features, read forward and back."""
        return 2 * 4.0 * self.clips * self.frames * L * C

    @property
    def weights(self) -> float:
        """How many the optimiser goes over."""
        H = self.hidden_size
        gates = (C + H + (self.layers - 1) * 2 * H) * 4 * H
        return gates + 2.0 * self.layers * C * H + H * H + H * self.classes + L * H


GRID = [
    Shape(),
    Shape(clips=8),
    Shape(clips=64),
    Shape(frames=10),
    Shape(frames=60),
    Shape(layers=3),
    Shape(layers=5),
    Shape(hidden_size=256),
    Shape(hidden_size=1024),
    Shape(classes=400),
]


class Videos(NamedTuple):
    """One point of the grid of what is extracted, or visited in an epoch."""

    count: int
    frames: int  # of each

    @property
    def clips(self) -> int:
        """At each frame but the last 29."""
        return self.count * (self.frames - 29)


VIDEOS = [Videos(16, 60), Videos(32, 60), Videos(16, 120), Videos(8, 240), Videos(64, 30)]
EPOCHS = [Videos(8, 60), Videos(16, 60), Videos(32, 60), Videos(16, 91), Videos(8, 153)]


def rows(quick: bool) -> Iterator[Row]:
    """Measures at every point of the grids, and the law that fits each grid."""
    yield from step_rows(GRID[:3] if quick else GRID)
    yield from epoch_rows(EPOCHS[:2] if quick else EPOCHS)
    yield from extraction_rows(VIDEOS[:2] if quick else VIDEOS)


def step_rows(shapes: Sequence[Shape]) -> Iterator[Row]:
    """A training step of each shape."""
    taken = [figure(times) for times in in_turn([step(s) for s in shapes], 3)]
    law = fit([terms(shape) for shape in shapes], taken)
    for shape, time in zip(shapes, taken, strict=True):
        B, T, layers, H, N = shape
        name = f"training step, B {B}, T {T}, {layers}×{H}, N {N}"
        yield row(name, time, float(np.dot(law, terms(shape))), "ms", 1e-3)
    yield Row(
        "the law: seconds of a step",
        f"{law[0] * 1e12:,.2f} s a TFLOP + {law[1] * 1e9:,.2f} s a GB of features + "
        f"{law[2] * 1e9:,.1f} s a billion weights",
    )


def epoch_rows(grid: Sequence[Videos]) -> Iterator[Row]:
    """An epoch of training at stride 1, on features in memory."""
    config = TrainConfig(fold="1", lstm_layers=1, batch_size=32)
    works = [made_epoch([config], videos.count, videos.frames) for videos in grid]
    taken = [figure(times) for times in in_turn(works, 3)]
    (law,) = fit([[videos.clips] for videos in grid], taken)
    for videos, time in zip(grid, taken, strict=True):
        name = f"epoch, {videos.count} videos of {videos.frames} frames, B 32, T 30, 1×512"
        yield row(name, time, law * videos.clips, "s", 1)
    yield Row("the law: seconds of an epoch", f"{law * 1e3:,.2f} ms a clip that it visits")


def extraction_rows(grid: Sequence[Videos]) -> Iterator[Row]:
    """Files to a cache, after the start."""
    with tempfile.TemporaryDirectory() as folder:
        material = material_of(Path(folder), quick=True)
        places = [Path(folder, f"{videos.count} of {videos.frames}") for videos in grid]
        drawn = [draw(place, videos) for place, videos in zip(places, grid, strict=True)]
        materials = [material._replace(clips=clips) for clips in drawn]
        found = [[extracted("bvlc_googlenet", it) for it in materials] for _ in range(3)]
    taken = [figure([it.seconds - it.start for it in runs]) for runs in zip(*found, strict=True)]
    law = fit([[videos.count, videos.count * videos.frames] for videos in grid], taken)
    for videos, time in zip(grid, taken, strict=True):
        says = law[0] * videos.count + law[1] * videos.count * videos.frames
        name = f"extraction, {videos.count} videos of {videos.frames} frames"
        yield row(name, time, says, "s", 1)
    yield Row(
        "the law: seconds of an extraction",
        f"{law[0] * 1e3:,.1f} ms a video + {law[1] * 1e3:,.2f} ms a frame",
    )


def row(name: str, time: Figure, says: float, unit: str, scale: float) -> Row:
    """What was measured beside what the law says."""
    digits = 0 if unit == "ms" else 1
    text = f"{says / scale:,.{digits}f} {unit} by the law, {says / time.median - 1:+.0%}"
    return Row(name, time.text(unit, scale, digits), bound=text)


def step(shape: Shape) -> Callable[[], object]:
    """A training step of this shape."""
    B, T, layers, H, N = shape
    X = torch.rand(B, T, L, C, device=DEVICE)
    sizes = {"lstm_layers": layers, "hidden_size": H, "classes": N}
    return training.step("location", X, torch.float32, **sizes)


def terms(shape: Shape) -> list[float]:
    """What the law adds up."""
    return [shape.operations, shape.bytes, shape.weights]


def draw(folder: Path, videos: Videos) -> list[Path]:
    """Clips of so many frames: the demo's, there and back and there again."""
    folder.mkdir()
    clips = [folder / f"{i:03d}.avi" for i in range(videos.count)]
    for i, clip in enumerate(clips):
        drawn = draw_clip(i, 0, COLOURS["red"])
        last = len(drawn) - 1
        write_video(clip, drawn[last - abs(np.arange(videos.frames) % (2 * last) - last)])
    return clips


def fit(terms: Sequence[Sequence[float]], taken: Sequence[Figure]) -> np.ndarray:
    """The law's factors of these terms, none below 0, by least squares of the relative error."""
    matrix = np.array(terms) / np.array([[t.median] for t in taken])
    scale = matrix.max(0)
    return nnls(matrix / scale, np.ones(len(terms)))[0] / scale
