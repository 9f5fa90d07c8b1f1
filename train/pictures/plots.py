"""Pictures of one run: a confusion matrix, and a clip with the attention over it."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from attnact.cache.features import LOCATIONS, ROWS
from attnact.machine.files import write_bytes
from attnact.train.pictures.fonts import families

SMOOTHING = 20 / 32  # of a location: the Gaussian over a map that is drawn

Frames = npt.NDArray[np.uint8]


def plot_confusion(
    path: Path, matrix: npt.NDArray[np.int64], classes: Sequence[str], title: str = ""
) -> None:
    """True classes down, predicted classes across; each row's share as the shade."""
    N = len(classes)
    side = max(4.0, 0.28 * N + 2.5)
    with figure(path, (side, side)) as sheet:
        axes = sheet.subplots()
        axes.set_title(title, fontsize="small")
        share = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(N), classes, rotation=90)
        axes.set_yticks(range(N), classes)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if N <= 20:
            for (true, predicted), count in np.ndenumerate(matrix):
                color = "white" if share[true, predicted] > 0.5 else "black"
                axes.text(predicted, true, str(count), ha="center", va="center", color=color)


def plot_attention(
    path: Path, frames: Frames, maps: npt.NDArray[np.float32], labels: Sequence[str], title: str
) -> None:
    """A strip of frames over the same frames as the model saw them.

    The brightness of a location is its share of the attention, smoothed; it is the same scale in
    every frame, from none to the largest share in the strip.

    Args:
        path: of the PNG to write.
        frames: (n, height, width, 3), RGB.
        maps: attention maps, (n, L).
        labels: a word under each frame.
        title: a line over the strip.
    """
    n, height, width = frames.shape[:3]
    with figure(path, (1.5 * n + 0.4, 1.5 * 2 * height / width + 0.9)) as sheet:
        white = brightest(maps)
        sheet.suptitle(f"{title}\n{legend(white)}", fontsize=9)
        axes = sheet.subplots(2, n, squeeze=False)
        for i in range(n):
            _show(axes[0, i], frames[i], "")
            _show(axes[1, i], light(frames[i], maps[i], white), labels[i])


def legend(white: float) -> str:
    """The range of the light in words."""
    even = 100 / LOCATIONS
    return f"attention a location: darkest 0 %, brightest {100 * white:.1f} %; even: {even:.1f} %"


def upsample(
    attention_map: npt.NDArray[np.float32], height: int, width: int
) -> npt.NDArray[np.float32]:
    """A map of L values, (height, width): smooth, never negative, never above its maximum.

    For 224×224 it is scikit-image's `pyramid_expand(upscale=32, sigma=20)`, which the released
    notebook draws with.
    """
    grid = attention_map.reshape(ROWS, ROWS)
    smooth: npt.NDArray[np.float32] = _expansion(height) @ grid @ _expansion(width).T
    return smooth


def brightest(maps: npt.NDArray[np.float32]) -> float:
    """The largest value of maps (n, L) once they are smooth; one at a time, for there are many."""
    return max(float(upsample(one, 7 * ROWS, 7 * ROWS).max()) for one in maps)


def light(
    frame: Frames, attention_map: npt.NDArray[np.float32], white: float
) -> npt.NDArray[np.uint8]:
    """The frame lit where a map (L,) is; `white` is the value that is lit most."""
    glow = upsample(attention_map / white, *frame.shape[:2])[..., None]
    return shine(frame, glow)


def shine(pixels: npt.NDArray[Any], glow: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Pixels as bright as a glow from 0 to 1 makes them."""
    return (pixels * (0.25 + 0.5 * glow) + 255 * 0.25 * glow).clip(0, 255).astype(np.uint8)


@lru_cache(16)
def _expansion(size: int) -> npt.NDArray[np.float32]:
    """What makes `size` pixels of a row of locations, (size, ROWS): linear, then a Gaussian."""
    place = (np.arange(size) + 0.5) * ROWS / size - 0.5
    mirrored = np.pad(np.eye(ROWS), ((1, 1), (0, 0)), mode="reflect")
    linear = [np.interp(place, np.arange(-1, ROWS + 1), column) for column in mirrored.T]
    sigma = SMOOTHING * size / ROWS
    smooth = gaussian_filter1d(np.stack(linear, axis=1), sigma, axis=0)
    return np.asarray(smooth, np.float32)


def _show(axes: Any, image: Frames, label: str) -> None:
    axes.imshow(image)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(label, fontsize=8)


@contextmanager
def figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of so many inches, written to the PNG when it is drawn."""
    picture = io.BytesIO()
    with (
        rc_context({"font.family": families(), "text.parse_math": False}),  # a $ is a $
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands for the letter
        sheet = Figure(size, layout="constrained")
        yield sheet
        FigureCanvasAgg(sheet)
        sheet.savefig(picture, format="png", dpi=130, metadata={"Software": None})
    write_bytes(path, picture.getvalue())
