"""How the cost of a training step grows, and one law for all its sizes."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls

from tests.bench import training
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


def rows(quick: bool) -> Iterator[Row]:
    """A training step at every point of the grid, and the law that fits them all."""
    shapes = GRID[:3] if quick else GRID
    taken = [figure(times) for times in in_turn([step(s) for s in shapes], 3)]
    law = fit(shapes, taken)
    for shape, time in zip(shapes, taken, strict=True):
        says = float(np.dot(law, terms(shape)))
        text = f"{says * 1e3:,.0f} ms by the law, {says / time.median - 1:+.0%}"
        B, T, layers, H, N = shape
        name = f"B {B}, T {T}, {layers}×{H}, N {N}"
        yield Row(f"training step, {name}", time.text("ms", 1e-3), bound=text)
    yield Row(
        "the law: seconds of a step",
        f"{law[0] * 1e12:,.2f} s a TFLOP + {law[1] * 1e9:,.2f} s a GB of features + "
        f"{law[2] * 1e9:,.1f} s a billion weights",
    )


def step(shape: Shape) -> Callable[[], object]:
    """A training step of this shape."""
    B, T, layers, H, N = shape
    X = torch.rand(B, T, L, C, device=DEVICE)
    sizes = {"lstm_layers": layers, "hidden_size": H, "classes": N}
    return training.step("location", X, torch.float32, **sizes)


def terms(shape: Shape) -> list[float]:
    """What the law adds up."""
    return [shape.operations, shape.bytes, shape.weights]


def fit(shapes: Sequence[Shape], taken: Sequence[Figure]) -> np.ndarray:
    """The law's factors, none below 0, by least squares of the relative error."""
    matrix = np.array([terms(s) for s in shapes]) / np.array([[t.median] for t in taken])
    scale = matrix.max(0)
    return nnls(matrix / scale, np.ones(len(shapes)))[0] / scale
